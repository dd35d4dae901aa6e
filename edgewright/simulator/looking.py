"""How a simulated device looks for updates: the agent's updater as a generator that asks and is given answers.

It asks a depot for the same objects in the same order as `edge_agent.updater` does, decides with the same functions
(`edge_agent.update.selection`, `edge_agent.updater.offers`, `edge_agent.update.preflight`) and says the same words
(`edge_agent.ipc.updater`). Chunks are checked against the manifest and counted, not stored. Deltas are not asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from tuf.api.metadata import Snapshot, Targets, Timestamp

from edge_agent.backoff import InFlight
from edge_agent.errors import DamagedError, HashMismatchError, NotFoundError
from edge_agent.ipc.updater import (
    Checking,
    Fetching,
    FromUpdater,
    Hold,
    Offer,
    SlotPlan,
    Stored,
    Trouble,
    Trusted,
    Withdraw,
)
from edge_agent.ports import ObjectKind
from edge_agent.update.preflight import DeviceFacts, fingerprint, preflight
from edge_agent.update.record import CandidateRelease
from edge_agent.update.selection import Holdings, decide
from edge_agent.updater.offers import lacks_place, offer_of
from edge_contracts.channel import (
    Channel,
    ChannelRelease,
    channel_target,
    family_target,
    manifest_target,
    parse_channel,
    parse_family,
)
from edge_contracts.errors import BundleError, EdgewrightError, TransportError, TrustError
from edge_contracts.limits import CHUNK_BYTES
from edge_contracts.manifest import Manifest, parse_manifest
from edge_contracts.profile import DeviceProfile
from edge_contracts.selection import Facts
from edge_contracts.turns import DeviceTurn, Roster, parse_roster, roster_target, shard_of, turn_of
from edgewright.simulator.trust import TrustedMetadata, is_target

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Bytes of an object to ask a depot for; `length` None for the whole of it."""

    kind: ObjectKind
    name: str
    offset: int = 0
    length: int | None = None


Asking = Generator[list[Ask], list[bytes | None], T]
"""Yields what to ask for; is sent the answers in the same order, None for an object that does not exist."""


class ManifestShelf:
    """Manifests that were parsed in this process, by their SHA-256."""

    def __init__(self) -> None:
        self._known: dict[str, Manifest] = {}

    def parsed(self, data: bytes) -> tuple[str, Manifest]:
        """Return a manifest's SHA-256 and what it says. Raises ContractError."""
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 not in self._known:
            self._known[sha256] = parse_manifest(data)
        return sha256, self._known[sha256]


@dataclass(kw_only=True)
class Looker:
    """One device's updater. `pieces` are the chunks it holds of releases that are not complete, as they outlive a power
    cut; `complete` the releases of which every byte is there. `say` hears what the updater says."""

    device: str
    facts: Facts
    hardware: DeviceFacts
    profile: DeviceProfile
    trusted: TrustedMetadata
    shelf: ManifestShelf
    clock: Callable[[], float]
    say: Callable[[FromUpdater], None]
    pieces: dict[str, set[int]] = field(default_factory=dict)
    complete: set[str] = field(default_factory=set)
    _roster: tuple[str, Roster] | None = None

    def look(self, slot: SlotPlan) -> Asking[None]:
        """Look once. Every trouble is said, none raised."""
        try:
            yield from self._refresh()
            self.say(Trusted(versions=self.trusted.versions()))
            yield from self._update(slot)
        except EdgewrightError as error:
            self.say(trouble(error, slot.slot))

    def _refresh(self) -> Asking[None]:
        trusted, now = self.trusted, self.clock()
        while root := (yield from _one(Ask(kind="metadata", name=f"{trusted.root.signed.version + 1}.root.json"))):
            trusted.take_root(root)
        data = yield from _needed(Ask(kind="metadata", name="timestamp.json"))
        trusted.take(Timestamp.type, data, trusted.root, None, now)
        info = trusted.snapshot_info()
        if trusted.versions().get(Snapshot.type) != info.version:
            data = yield from _needed(Ask(kind="metadata", name=f"{info.version}.snapshot.json"))
            trusted.take(Snapshot.type, data, trusted.root, info, now)
        yield from self._role(Targets.type)

    def _role(self, role: str) -> Asking[None]:
        trusted = self.trusted
        info = trusted.info(role)
        if trusted.versions().get(role) == info.version:
            return
        data = yield from _needed(Ask(kind="metadata", name=f"{info.version}.{role}.json"))
        delegator = trusted.root if role == Targets.type else trusted.roles[Targets.type]
        trusted.take(role, data, delegator, info, self.clock())

    def _target(self, target: str) -> Asking[bytes]:
        role = self.trusted.delegate_of(target)
        yield from self._role(role)
        info = self.trusted.target(role, target)
        folder, slash, name = target.rpartition("/")
        path = f"{folder}{slash}{info.hashes['sha256']}.{name}"
        data = yield from _needed(Ask(kind="target", name=path))
        if not is_target(info, data):
            raise HashMismatchError("differs from what is signed", subject=target)
        return data

    def _update(self, slot: SlotPlan) -> Asking[None]:
        channel = parse_channel((yield from self._target(channel_target(slot.channel))))
        family = parse_family((yield from self._target(family_target(channel.model))))
        held = Holdings(running=frozenset(slot.running), ready=frozenset(slot.ready))
        now = datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        decision = decide(channel, family, self.facts, held, now)
        for manifest, reason in decision.withdraw:
            self.say(Withdraw(slot=slot.slot, manifest_sha256=manifest, reason=reason))
        if decision.refused is not None:
            self.say(Trouble(fault="operator", reason=decision.refused, text="not allowed", slot=slot.slot))
        elif decision.hold is not None:
            self.say(Hold(slot=slot.slot, reason=decision.hold))
        elif decision.wish is not None:
            yield from self._have(slot, channel, decision.wish)

    def _have(self, slot: SlotPlan, channel: Channel, wish: ChannelRelease) -> Asking[None]:
        turn = yield from self._turn(channel)
        placed = not lacks_place(channel, self.facts, turn)
        told = offer_of(
            slot, channel, wish, self.device, may_install=True, facts=self._fingerprint, now=self.clock(), turn=turn,
            placed=placed,
        )  # fmt: skip
        if told is None:
            return
        self.say(told)
        if isinstance(told, Offer) and wish.manifest_sha256 not in slot.ready:
            yield from self._install(slot.slot, told.candidate)

    def _turn(self, channel: Channel) -> Asking[DeviceTurn | None]:
        """Look the device's turn up in the roster of its group, which is asked for when another one is signed."""
        rule = channel.availability
        group = None if rule is None else self.facts.value(rule.group)
        if rule is None or group is None:
            return None
        target = roster_target(channel.channel, shard_of(group, rule.shards))
        role = self.trusted.delegate_of(target)
        yield from self._role(role)
        signed = self.trusted.target(role, target).hashes["sha256"]
        if self._roster is None or self._roster[0] != signed:
            self._roster = signed, parse_roster((yield from self._target(target)))
        return turn_of(rule, self._roster[1], group, self.device)

    def _install(self, slot: str, wish: CandidateRelease) -> Asking[None]:
        self.say(Checking(slot=slot, facts=self._fingerprint()))
        sha256, manifest = self.shelf.parsed((yield from self._target(manifest_target(wish.model, wish.version))))
        if sha256 != wish.manifest_sha256:
            raise HashMismatchError("differs from the manifest named by the channel", subject=wish.version)
        if sha256 not in self.complete:
            yield from self._download(slot, sha256, manifest)
        self.say(Fetching(slot=slot, done=manifest.total_bytes, total=manifest.total_bytes))
        self.say(Stored(slot=slot))

    def _download(self, slot: str, sha256: str, manifest: Manifest) -> Asking[None]:
        chunks = [(entry, number) for entry in manifest.files for number in range(len(entry.chunks))]
        here = self.pieces.setdefault(sha256, set())
        shortfall = preflight(manifest, self.hardware, self.profile, len(here) * manifest.chunk_size)
        if shortfall is not None:
            self.say(Trouble(fault="device", reason=shortfall.reason, text=shortfall.text, slot=slot))
            return
        self.say(Fetching(slot=slot, done=len(here), total=len(chunks)))
        missing = [place for place in range(len(chunks)) if place not in here]
        window = InFlight()
        while missing:
            places, missing = missing[: window.limit], missing[window.limit :]
            asks = []
            for place in places:
                entry, number = chunks[place]
                offset = number * manifest.chunk_size
                length = min(manifest.chunk_size, entry.size - offset)
                asks.append(Ask(kind="blob", name=entry.sha256, offset=offset, length=length))
            began = self.clock()
            answers = yield asks
            for _ in answers:  # as the agent's window grows, or does not on a slow link
                window = window.observed(self.clock() - began)
            for place, data in zip(places, answers, strict=True):
                entry, number = chunks[place]
                if data is None or hashlib.sha256(data).hexdigest() != entry.chunks[number]:
                    raise DamagedError("a chunk is not what the manifest pins", subject=entry.path)
                here.add(place)
        self.complete.add(sha256)
        del self.pieces[sha256]

    def _fingerprint(self) -> str:
        return fingerprint(self.hardware, self.profile)


def trouble(error: EdgewrightError, slot: str) -> Trouble:
    """Return what is said of an error, as the agent's updater says it."""
    if isinstance(error, TrustError):
        return Trouble(fault="trust", reason=error.reason, text=str(error)[:200], slot=slot)
    if isinstance(error, TransportError):
        return Trouble(fault="transport", reason=error.reason, text=str(error)[:200], slot=slot)
    fault = "bundle" if isinstance(error, BundleError) else "device"
    return Trouble(fault=fault, reason=error.reason, text=str(error)[:200], slot=slot)  # type: ignore[arg-type]


def _one(ask: Ask) -> Asking[bytes | None]:
    found = yield [ask]
    return found[0]


def _needed(ask: Ask) -> Asking[bytes]:
    data = yield from _one(ask)
    if data is None:
        raise NotFoundError("not found at the depot", subject=f"{ask.kind} {ask.name}")
    return data


PIECE_BYTES = CHUNK_BYTES
"""Bytes of an object that are asked for at once where nothing else is said."""
