"""Why a device does what it does about a rollout, and why a rollout is where it is: in sentences, with the next step.

Pure: from what devices reported, the signed channel, and what the controller decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from edge_contracts.channel import Channel, ChannelRelease, MaintenanceWindow
from edge_contracts.codec import Record
from edge_contracts.selection import Facts, bucket, matches, window_open
from edge_contracts.selector import described
from edge_contracts.state import ReportedState, SlotState
from edge_fleet.database.telemetry import DeviceRow
from edge_fleet.rollouts.waves import facts_of

_WORK = {
    "preflight": "is checking whether {version} fits",
    "downloading": "is downloading {version}",
    "trial": "is trying {version}",
    "shadow": "runs {version} in shadow",
    "active": "serves {version} and watches it",
}
GIVEN_UP_EVENTS = ("update-rejected", "update-rolled-back")
"""Events that carry an excerpt of the device's log."""

_HELD = {
    "paused": ("the rollout is paused", "edgewright fleet rollout resume"),
    "deadline": ("the rollout's deadline has passed", "start the rollout again with a later deadline"),
    "governor": ("the device is short of memory, battery, cooling or disk", "edgewright fleet devices shows its level"),
}


class Sentence(Record, frozen=True, kw_only=True):
    """One thing that is so, about a slot if it names one, and what to do about it, if anything. `log` is the end of the
    device's log, as it came with the report of a release that was given up."""

    text: str
    slot: str | None = None
    next: str | None = None
    log: str | None = None


def explain_device(
    name: str, row: DeviceRow | None, channels: dict[str, Channel], others: Iterable[DeviceRow], clock: str
) -> list[Sentence]:
    """Return why a device's slots are as they are; `clock` is UTC as HH:MM, `others` the fleet to compare with.
    `with_log` adds what the device's log says."""
    if row is None or row.reported is None:
        text = f"{name} has never reported" if row is None else f"{name} is known, but has not reported its state"
        return [Sentence(text=text, next="on the device: edgewright agent doctor; here: does the controller run?")]
    found: list[Sentence] = []
    if row.online is False:
        text = f"is offline since {row.last_seen[:19]}Z: what follows is what it last reported"
        found.append(Sentence(text=text, next="power, network, then on the device: edgewright agent doctor"))
    elif row.reported.level != "NORMAL":
        found.append(Sentence(text=f"is at level {row.reported.level}: it starts no update"))
    fleet = [other for other in others if other.device != name]
    return found + [_explain_slot(row.reported, slot, channels, fleet, clock) for slot in row.reported.slots]


def with_log(
    sentences: Iterable[Sentence], report: ReportedState | None, events: Sequence[dict[str, Any]]
) -> list[Sentence]:
    """Return the sentences, those about a slot that gave a release up with the log that came with its report; `events`
    are the device's, oldest first, as plain values."""
    slots = {} if report is None else {slot.slot: slot for slot in report.slots}
    return [
        msgspec.structs.replace(one, log=_log_of(slots[one.slot], events)) if one.slot in slots else one
        for one in sentences
    ]


def _log_of(slot: SlotState, events: Sequence[dict[str, Any]]) -> str | None:
    """Return the newest log about the release that the slot gave up."""
    if slot.state not in ("rejected", "rolled_back") or slot.candidate is None:
        return None
    for event in reversed(events):
        detail = event.get("detail", {})
        about = detail.get("manifest_sha256") == slot.candidate.manifest_sha256 and event.get("slot") == slot.slot
        if about and event.get("event") in GIVEN_UP_EVENTS:
            return str(event.get("log", "")) or None
    return None


def _explain_slot(
    report: ReportedState, slot: SlotState, channels: dict[str, Channel], others: Sequence[DeviceRow], clock: str
) -> Sentence:
    if slot.channel is None:
        return Sentence(slot=slot.slot, text="has no channel: nothing is installed over the network")
    channel = channels.get(slot.channel)
    if channel is None:
        text = f"nothing was ever rolled out on its channel {slot.channel}"
        return Sentence(slot=slot.slot, text=text, next="edgewright fleet rollout start")
    facts = facts_of(report)
    outside = _outside(channel, facts)
    wish = channel.stable if outside is not None or channel.candidate is None else channel.candidate
    if wish is None:
        return Sentence(slot=slot.slot, text=f"{outside or 'is offered nothing'}; the channel has no stable release")
    sentence = _explain_wish(report, slot, wish, channel, others, clock)
    if outside is None:
        return sentence
    return Sentence(slot=slot.slot, text=f"{outside}; {sentence.text}", next=sentence.next)


def _outside(channel: Channel, facts: Facts) -> str | None:
    """Return why the device is not in the wave; None if it is, or if there is no rollout."""
    if channel.candidate is None or channel.rollout is None:
        return None
    for selector in channel.selectors:
        if not matches((selector,), facts):
            wanted = described(selector)
            return f"is not selected: {selector.fact} is {facts.value(selector.fact)!r}, the rollout asks for {wanted}"
    place = bucket(channel.rollout, facts.device)
    if place >= channel.percentage:
        return f"is not in the wave yet: its place is {place:.1f} of 100, the wave reaches {channel.percentage:.3g}"
    return None


def _explain_wish(
    report: ReportedState,
    slot: SlotState,
    wish: ChannelRelease,
    channel: Channel,
    others: Sequence[DeviceRow],
    clock: str,
) -> Sentence:
    version, candidate = wish.version, slot.candidate
    serves = slot.serving is not None and slot.serving.manifest_sha256 == wish.manifest_sha256
    if serves and slot.state == "committed":
        return Sentence(slot=slot.slot, text=f"runs {version}, committed: nothing is due")
    if serves and slot.state in ("rejected", "rolled_back") and candidate is not None:
        sentence = _explain_failure(report, slot, candidate.version, others)
        return Sentence(slot=slot.slot, text=f"runs {version}, as it should; it {sentence.text}", next=sentence.next)
    if candidate is None or candidate.manifest_sha256 != wish.manifest_sha256:
        text = f"has not taken notice of {version} yet (its last report is of {report.time})"
        return Sentence(slot=slot.slot, text=text, next="can it reach a depot? on the device: edgewright agent doctor")
    if slot.state in ("rejected", "rolled_back"):
        return _explain_failure(report, slot, version, others)
    if slot.state == "verified" or (slot.state == "offered" and slot.reason == "window"):
        return Sentence(slot=slot.slot, text=_waits(version, channel.window, clock))
    if slot.state == "offered":
        why, step = _HELD.get(
            slot.reason or "", (f"held up by: {slot.reason}" if slot.reason else "about to begin", None)
        )
        return Sentence(slot=slot.slot, text=f"has not begun with {version}: {why}", next=step)
    text = _WORK.get(slot.state, "has {version} in state " + slot.state).format(version=version)
    share = f", {slot.progress:.0%} done" if slot.progress is not None and slot.state == "downloading" else ""
    since = f" since {slot.since}" if slot.since is not None else ""
    return Sentence(slot=slot.slot, text=f"{text}{share}{since}")


def _waits(version: str, window: MaintenanceWindow | None, clock: str) -> str:
    if window is None or window_open(window, clock):
        return f"has {version} and is about to try it"
    return f"has {version} and waits for its window, which opens {window.start} UTC"


def _explain_failure(report: ReportedState, slot: SlotState, version: str, others: Sequence[DeviceRow]) -> Sentence:
    verb = "rejected" if slot.state == "rejected" else "rolled back from"
    same = [other for other in others if _gave(other, slot)]
    alike = sum(other.reported is not None and other.reported.board == report.board for other in same)
    more = f"; {len(same)} more say the same, {alike} of them of this board" if same else ""
    text = f"{verb} {version}: {slot.reason}{more}"
    events = f"edgewright fleet events DIR --device {report.device} says what happened"
    then = "release a new version" if same else f"edgewright fleet rollout retry DIR --device {report.device}"
    return Sentence(slot=slot.slot, text=text, next=f"{events}; then {then}")


def _gave(other: DeviceRow, slot: SlotState) -> bool:
    if other.reported is None or slot.candidate is None:
        return False
    return any(
        one.candidate == slot.candidate and one.state == slot.state and one.reason == slot.reason
        for one in other.reported.slots
    )
