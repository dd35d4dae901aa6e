"""Getting one signed release onto the disk: its manifest, preflight, its deltas, its bytes. Part of the updater.

Which release is wished is decided in `edge_agent.updater`; how chunks arrive is in `edge_agent.updater.download`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.engines.registry import installed_engines
from edge_agent.errors import DamagedError, HashMismatchError, MalformedError, MissingTargetError
from edge_agent.host.control_groups import ControlGroups
from edge_agent.host.sensors import architecture, disk_free_mb, memory_available_mb
from edge_agent.ipc.updater import (
    Checking,
    Damaged,
    DeltaUnused,
    DeltaUsed,
    Fetching,
    FromUpdater,
    Repaired,
    SlotPlan,
    Stored,
)
from edge_agent.ports import Transport
from edge_agent.storage.state_dir import StateFolder
from edge_agent.update.preflight import DeviceFacts, fingerprint, preflight
from edge_agent.update.record import CandidateRelease
from edge_agent.updater.byte_budget import ByteBudget, bytes_left_today, count_today
from edge_agent.updater.delta_rebuild import Rebuilt
from edge_agent.updater.download import Download
from edge_agent.updater.trusted_repository import TrustedRepository
from edge_contracts import limits
from edge_contracts.channel import manifest_target
from edge_contracts.delta import Deltas, deltas_target, parse_deltas
from edge_contracts.errors import ContractError, DeviceError, EdgewrightError, TransportError, TrustError
from edge_contracts.manifest import parse_manifest
from edge_contracts.names import parse_time
from edge_contracts.profile import DeviceProfile
from edge_contracts.state import Installed

PROGRESS_S = 0.25
"""Seconds between two progress lines."""

WASTE = 2
"""A release may cost at most this many times its own size in fetched bytes, in one attempt."""

Say = Callable[[FromUpdater], None]


class ShortfallError(DeviceError):
    """The device lacks what the release requires."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.code = reason


@dataclass(frozen=True, kw_only=True)
class Installer:
    """Installs releases for one updater. `metered`: what is fetched counts against the day's budget."""

    repository: TrustedRepository
    carrier: Transport
    state: StateFolder
    profile: DeviceProfile
    metered: bool
    say: Say

    def install(self, slot: SlotPlan, wish: CandidateRelease) -> None:
        """Have every byte of the release on the disk, verified and durable. Raises EdgewrightError."""
        facts = self._facts()
        self.say(Checking(slot=slot.slot, facts=fingerprint(facts, self.profile)))
        data = self._manifest(wish.model, wish.version, wish.manifest_sha256)
        teller = _Teller(self.say, slot.slot)
        traffic = ByteBudget(limit=self._limit(parse_manifest(data).total_bytes))
        download = Download(
            state=self.state,
            manifest_bytes=data,
            carrier=self.carrier,
            network=self.profile.network,
            traffic=traffic,
            told=teller,
            bundles=() if slot.factory is None else (Path(slot.factory),),
            rebuilt=teller.rebuilt,
        )
        total = download.manifest.total_bytes
        if not self.state.has_release(wish.manifest_sha256):
            self._check(download, facts)
            teller.now(0, total)
            download.deltas = self._deltas(slot.slot, wish)
            self._run(download)
        teller.now(total, total)
        self.say(Stored(slot=slot.slot, saved=teller.saved))

    def repair(self, slot: SlotPlan, model: str, release: Installed, found: DamagedError) -> None:
        """Have every byte of an installed release again, in which `found` is wrong. Raises EdgewrightError."""
        self.say(Damaged(slot=slot.slot, manifest_sha256=release.manifest_sha256, text=str(found)))
        data = self._manifest(model, release.version, release.manifest_sha256)
        download = Download(
            state=self.state,
            manifest_bytes=data,
            carrier=self.carrier,
            network=self.profile.network,
            traffic=ByteBudget(limit=self._limit(parse_manifest(data).total_bytes)),
            told=lambda _done, _total: None,
            bundles=() if slot.factory is None else (Path(slot.factory),),
            replaces=True,
        )
        self._run(download)
        fetched = download.traffic.used
        self.say(Repaired(slot=slot.slot, manifest_sha256=release.manifest_sha256, fetched=fetched))

    def _run(self, download: Download) -> None:
        try:
            download.run()
        finally:
            if self.metered:
                count_today(self.state.traffic, download.traffic.used)

    def _limit(self, total: int) -> int:
        limit = WASTE * total + limits.MIB
        return min(limit, bytes_left_today(self.state.traffic, self.profile.network)) if self.metered else limit

    def _manifest(self, model: str, version: str, sha256: str) -> bytes:
        """Return the manifest's bytes, signed by the family's role and the very ones the channel names."""
        target = manifest_target(model, version)
        data = self.repository.fetch(target, limits.MAX_MANIFEST_BYTES)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise HashMismatchError("differs from the manifest named by the channel", subject=target)
        manifest = parse_manifest(data)
        if (manifest.name, manifest.version) != (model, version):
            raise MalformedError(f"says it is {manifest.name} {manifest.version}", subject=target)
        self.repository.saw_time(parse_time(manifest.created, what="manifest.created").timestamp())
        return data

    def _deltas(self, slot: str, wish: CandidateRelease) -> Deltas | None:
        """Return the signed deltas towards the release, or None: they spare bytes, and nothing depends on them."""
        target = deltas_target(wish.model, wish.version)
        try:
            found = parse_deltas(self.repository.fetch(target, limits.MAX_MANIFEST_BYTES))
            if found.manifest_sha256 != wish.manifest_sha256:
                raise MalformedError("are for another manifest", subject=target)
        except MissingTargetError:
            return None
        except (TrustError, TransportError, ContractError) as error:
            self.say(_unused(slot, target, error))
            return None
        return found

    def facts(self) -> str:
        """Return what names the facts about the device that a refusal depends on."""
        return fingerprint(self._facts(), self.profile)

    def _facts(self) -> DeviceFacts:
        limit = ControlGroups().memory()
        return DeviceFacts(
            architecture=architecture(),
            engines=installed_engines(),
            available_memory_mb=memory_available_mb(),
            memory_limit_left_mb=None if limit is None else limit.left_mb,
            disk_free_mb=disk_free_mb(self.state.root) or 0.0,
        )

    def _check(self, download: Download, facts: DeviceFacts) -> None:
        shortfall = preflight(download.manifest, facts, self.profile, download.fetched_bytes())
        if shortfall is not None:
            raise ShortfallError(shortfall.reason, shortfall.text)


class _Teller:
    """Says how far a download is, not too often, and what came of each delta."""

    def __init__(self, say: Say, slot: str) -> None:
        self.saved = 0
        self._say = say
        self._slot = slot
        self._next = 0.0

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() >= self._next:
            self.now(done, total)

    def now(self, done: int, total: int) -> None:
        self._next = time.monotonic() + PROGRESS_S
        self._say(Fetching(slot=self._slot, done=done, total=total))

    def rebuilt(self, found: Rebuilt) -> None:
        if found.problem is not None:
            self._say(_unused(self._slot, found.path, found.problem))
            return
        self.saved += found.spared
        self._say(DeltaUsed(slot=self._slot, path=found.path, fetched=found.fetched, spared=found.spared))


def _unused(slot: str, path: str, error: EdgewrightError) -> DeltaUnused:
    return DeltaUnused(slot=slot, path=path, reason=error.reason, text=str(error)[:1000])
