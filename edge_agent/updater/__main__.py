"""The updater: a short-lived process that looks for signed wishes, fetches what they name and says what it did.

    python -m edge_agent.updater <UpdatePlan JSON>

It verifies and stores; it never decides what is served. Whatever it says goes out as one JSON line each
(`edge_agent.ipc.updater`); it may be killed at any moment and goes on from the chunks it has. It is a process of its
own because python-tuf costs 25 MB that the supervisor should not hold for ever.
"""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Set
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edge_agent.config.profiles import load_profile
from edge_agent.errors import ConfigError, MalformedError
from edge_agent.host.sensors import architecture
from edge_agent.ipc.updater import (
    CarrierFailed,
    Damaged,
    Fault,
    FromUpdater,
    Hold,
    Offer,
    Repaired,
    SlotPlan,
    Trouble,
    Trusted,
    UpdatePlan,
    Withdraw,
)
from edge_agent.ports import Transport
from edge_agent.storage.state_dir import StateFolder
from edge_agent.update.selection import Holdings, decide
from edge_agent.updater.comparable_facts import comparable_facts
from edge_agent.updater.installer import Installer, Say, ShortfallError
from edge_agent.updater.offers import lacks_place, offer_of
from edge_agent.updater.own_turn import own_turn
from edge_agent.updater.repair import damage
from edge_agent.updater.transports.directory import DirectoryTransport
from edge_agent.updater.transports.fallback import FallbackTransport, NoTransport
from edge_agent.updater.transports.http import HttpTransport
from edge_agent.updater.transports.mqtt import MqttTransport
from edge_agent.updater.trusted_repository import TrustedRepository
from edge_contracts import limits
from edge_contracts.channel import (
    Channel,
    ChannelRelease,
    channel_target,
    family_target,
    parse_channel,
    parse_family,
)
from edge_contracts.errors import BundleError, ContractError, DeviceError, EdgewrightError, TransportError, TrustError
from edge_contracts.selection import Facts
from edge_io.addresses import address_text


class Updater:
    """One look at the repository for every slot of the plan."""

    def __init__(self, plan: UpdatePlan, carrier: Transport, say: Say) -> None:
        self._plan = plan
        self._say = say
        self._state = StateFolder(Path(plan.state))
        self._profile = load_profile(plan.profile)
        self._facts = Facts(
            device=plan.device,
            board=self._profile.name,
            architecture=architecture(),
            tags=dict(plan.tags),
            measured=comparable_facts(),
        )
        self._repository = TrustedRepository(self._state.tuf, _read_root(plan.root), carrier, time.time())
        self._installer = Installer(
            repository=self._repository,
            carrier=carrier,
            state=self._state,
            profile=self._profile,
            metered=plan.directory is None,  # a stick costs no network
            say=say,
        )

    def run(self) -> None:
        """Look, and fetch what is wished. Every trouble is said, none raised: one slot's does not stop another's."""
        try:
            versions = self._repository.refresh(self._plan.announced)
            self._say(Trusted(versions=versions, facts=self._facts.measured))
        except EdgewrightError as error:
            if not self._plan.verify or self._damaged_here():
                self._say(trouble(error, None))
            return
        for slot in self._plan.slots:
            try:
                self._update(slot)
            except EdgewrightError as error:
                self._say(trouble(error, slot.slot))
        self._repository.close()

    def _damaged_here(self) -> bool:
        """Look at every byte of the installed releases without a repository; return whether something is wrong."""
        wrong = False
        for slot in self._plan.slots:
            for sha256 in (release.manifest_sha256 for release in slot.installed):
                found = damage(self._state.release(sha256), sha256)
                wrong = wrong or found is not None
                if found is None:
                    self._say(Repaired(slot=slot.slot, manifest_sha256=sha256))
                else:
                    self._say(Damaged(slot=slot.slot, manifest_sha256=sha256, text=str(found)))
        return wrong

    def _update(self, slot: SlotPlan) -> None:
        channel = self._channel(slot.channel)
        family = parse_family(self._repository.fetch(family_target(channel.model), limits.MAX_DOCUMENT_BYTES))
        held = Holdings(running=frozenset(slot.running), ready=frozenset(slot.ready))
        now = datetime.fromtimestamp(self._repository.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        decision = decide(channel, family, self._facts, held, now)
        for manifest, reason in decision.withdraw:
            self._say(Withdraw(slot=slot.slot, manifest_sha256=manifest, reason=reason))
        try:
            self._repair(slot, channel, {*family.revoked, *channel.blocked})
        except EdgewrightError as error:  # what is wished now may still be had
            self._say(trouble(error, slot.slot))
        if decision.refused is not None:
            text = f"channel {channel.channel} serial {channel.serial} names a release that is not allowed"
            self._say(Trouble(fault="operator", reason=decision.refused, text=text, slot=slot.slot))
        elif decision.hold is not None:
            self._say(Hold(slot=slot.slot, reason=decision.hold))
        elif decision.wish is not None:
            self._have(slot, channel, decision.wish)

    def _channel(self, name: str) -> Channel:
        channel = parse_channel(self._repository.fetch(channel_target(name), limits.MAX_DOCUMENT_BYTES))
        if channel.channel != name:
            raise MalformedError(f"contains channel {channel.channel!r}", subject=channel_target(name))
        return channel

    def _repair(self, slot: SlotPlan, channel: Channel, forbidden: Set[str]) -> None:
        """Have what is damaged of the installed releases fetched again. Raises EdgewrightError."""
        for release in slot.installed:
            sha256 = release.manifest_sha256
            if sha256 in forbidden or not (self._plan.verify or sha256 in slot.damaged):
                continue
            found = damage(self._state.release(sha256), sha256)
            if found is None:
                self._say(Repaired(slot=slot.slot, manifest_sha256=sha256))
            else:
                self._installer.repair(slot, channel.model, release, found)

    def _have(self, slot: SlotPlan, channel: Channel, wish: ChannelRelease) -> None:
        turn = own_turn(channel, self._facts, self._repository, self._state.tuf)
        told = offer_of(
            slot,
            channel,
            wish,
            self._plan.device,
            may_install=self._plan.may_install,
            facts=self._installer.facts,
            now=time.time(),
            turn=turn,
            placed=not lacks_place(channel, self._facts, turn),
        )
        if told is None:
            return
        self._say(told)
        if isinstance(told, Offer) and wish.manifest_sha256 not in slot.ready:
            self._installer.install(slot, told.candidate)


def trouble(error: EdgewrightError, slot: str | None) -> Trouble:
    """Return what is said of an error: by whose fault, and the stable reason."""
    branches: tuple[tuple[type[EdgewrightError], Fault], ...] = (
        (TrustError, "trust"),
        (TransportError, "transport"),
        (DeviceError, "device"),
        (BundleError, "bundle"),
        (ContractError, "bundle"),
    )
    fault: Fault = next((fault for branch, fault in branches if isinstance(error, branch)), "operator")
    reason = error.code if isinstance(error, ShortfallError) else error.reason
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return Trouble(fault=fault, reason=reason, text=f"{str(error)[:1000]}{notes}", slot=slot)


def carrier_failed(name: str, error: EdgewrightError) -> CarrierFailed:
    """Return what is said of a carrier that brought nothing, or nothing of use."""
    return CarrierFailed(carrier=name, reason=error.reason, text=str(error)[:1000])


def transport_of(plan: UpdatePlan, say: Say) -> tuple[Transport, Callable[[], None]]:
    """Return the plan's carriers as one and what closes them."""
    if plan.directory is not None:
        return DirectoryTransport(Path(plan.directory)), lambda: None
    carriers: dict[str, Transport] = {}
    close: Callable[[], None] = lambda: None  # noqa: E731
    if plan.http is not None:
        carriers[plan.http] = HttpTransport(plan.http, timeout_s=plan.timeout_s)
    if plan.broker is not None:
        mqtt = MqttTransport(plan.broker, plan.tenant, plan.device, timeout_s=plan.timeout_s)
        carriers[f"the depot at {address_text(plan.broker.host, plan.broker.port)}"] = mqtt
        close = mqtt.close
    if not carriers:
        return NoTransport(), close
    return FallbackTransport(carriers, lambda name, error: say(carrier_failed(name, error))), close


def _read_root(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", subject="config.trust.root") from error


def say_line(message: FromUpdater) -> None:
    """Write one line to standard output."""
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def _end_with_parent() -> None:
    """End this process when its standard input closes, which happens when the supervisor is gone."""
    os.read(0, 1)
    os._exit(0)


def main(arguments: list[str]) -> int:
    """Run the plan given as the only argument."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        plan = msgspec.json.decode(arguments[0].encode(), type=UpdatePlan)
        # One at a time: an updater whose supervisor was killed may need a moment to notice.
        lock = (Path(plan.state) / "updater.lock").open("ab")
        fcntl.flock(lock, fcntl.LOCK_EX)
        carrier, close = transport_of(plan, say_line)
        try:
            Updater(plan, carrier, say_line).run()
        finally:
            close()
    except EdgewrightError as error:
        say_line(trouble(error, None))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
