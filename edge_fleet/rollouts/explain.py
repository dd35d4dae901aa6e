"""Why a device does what it does about a rollout, and why a rollout is where it is: in sentences, with the next step.

Pure: from what devices reported, the signed channel, and what the controller decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Struct

from edge_contracts.channel import Channel, ChannelRelease
from edge_contracts.codec import Record
from edge_contracts.names import parse_time
from edge_contracts.selection import Facts, bucket, matches, reach, stratum, window_open
from edge_contracts.selector import described
from edge_contracts.state import ReportedState, SlotState
from edge_contracts.turns import DeviceTurn, opens_in_s
from edge_fleet.database.telemetry import DeviceRow
from edge_fleet.rollouts.plan_state import duration
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

_REFUSED = {
    "revoked": ("the release is revoked for every device", "release a new version"),
    "blocked": ("the release was aborted on this channel", "release a new version"),
    "below-minimum": ("it is older than the family's minimum version", "roll out a newer version"),
}
_LOOK = "is a depot running, with the whole repository? on the device: edgewright agent doctor"
_HELD = {
    "not-found": ("what it asked for is not at any depot", _LOOK),
    "unreachable": ("no depot answers it", _LOOK),
    "hash-mismatch": ("what a depot sends is not what is signed", _LOOK),
    "damaged": ("what a depot sends is not what is signed", _LOOK),
    "disk": ("the disk is too full", "make room on the device: edgewright agent status"),
    "memory": ("there is too little memory free", "on the device: edgewright agent status"),
    "updater-died": ("the process that fetches it died; it is started again", None),
    "no-place": ("the rollout's roster has no turn for it yet; the next step that is signed gives it one", None),
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
    name: str,
    row: DeviceRow | None,
    channels: dict[str, Channel],
    others: Iterable[DeviceRow],
    now: datetime,
    turns: Mapping[str, DeviceTurn] = MappingProxyType({}),
    refused: Mapping[str, Refusal] = MappingProxyType({}),
) -> list[Sentence]:
    """Return why a device's slots are as they are; `others` is the fleet to compare with, `turns` are its own turns by
    channel, `refused` what it said of each slot's wish, if it may not have it. `with_log` adds the device's log."""
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
    around = _Around(channels=channels, others=tuple(fleet), now=now, turns=turns, refused=refused)
    return found + [_explain_slot(row.reported, slot, around) for slot in row.reported.slots]


class Refusal(Record, frozen=True, kw_only=True):
    """What a device said of a release that a channel names and it may not have."""

    reason: str
    text: str


class _Around(Struct, frozen=True, kw_only=True):
    """What a slot is explained by, beside its own report."""

    channels: dict[str, Channel]
    others: tuple[DeviceRow, ...]
    now: datetime
    turns: Mapping[str, DeviceTurn]
    refused: Mapping[str, Refusal]


def refusals_of(events: Iterable[dict[str, Any]]) -> dict[str, Refusal]:
    """Return what each slot was refused last, unless it was offered something since; `events` are oldest first."""
    found: dict[str, Refusal] = {}
    for event in events:
        slot = event.get("slot")
        if slot is not None and event.get("event") == "update-refused":
            reason = str(event.get("detail", {}).get("reason", ""))
            found[slot] = Refusal(reason=reason, text=str(event.get("text", "")))
        elif slot is not None and event.get("event") == "update-offered" and "reason" not in event.get("detail", {}):
            found.pop(slot, None)
    return found


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


def _explain_slot(report: ReportedState, slot: SlotState, around: _Around) -> Sentence:
    if slot.channel is None:
        return Sentence(slot=slot.slot, text="has no channel: nothing is installed over the network")
    channel = around.channels.get(slot.channel)
    if channel is None:
        text = f"nothing was ever rolled out on its channel {slot.channel}"
        return Sentence(slot=slot.slot, text=text, next="edgewright fleet rollout start")
    facts = facts_of(report)
    outside = _outside(channel, facts)
    wish = channel.stable if outside is not None or channel.candidate is None else channel.candidate
    if wish is None:
        return Sentence(slot=slot.slot, text=f"{outside or _last_end(slot)}; the channel has no stable release")
    sentence = _explain_wish(report, slot, wish, channel, around)
    if outside is None:
        return sentence
    return Sentence(slot=slot.slot, text=f"{outside}; {sentence.text}", next=sentence.next)


def _last_end(slot: SlotState) -> str:
    """Say what became of the last release that the slot was offered."""
    if slot.candidate is None or slot.state not in ("rejected", "rolled_back"):
        return "is offered nothing"
    verb = "rejected" if slot.state == "rejected" else "went back from"
    return f"is offered nothing; it {verb} {slot.candidate.version}: {slot.reason}"


def _outside(channel: Channel, facts: Facts) -> str | None:
    """Return why the device is not in the wave; None if it is, or if there is no rollout."""
    if channel.candidate is None or channel.rollout is None:
        return None
    for selector in channel.selectors:
        if not matches((selector,), facts):
            wanted = described(selector)
            return f"is not selected: {selector.fact} is {facts.value(selector.fact)!r}, the rollout asks for {wanted}"
    place = bucket(channel.rollout, facts.device)
    reached = reach(channel.percentage, channel.strata, facts)
    if place >= reached:
        among = "" if channel.strata is None else f" among {stratum(channel.strata.facts, facts)}"
        return f"is not in the wave yet: its place is {place:.1f} of 100, the wave reaches {reached:.3g}{among}"
    return None


def _explain_wish(
    report: ReportedState,
    slot: SlotState,
    wish: ChannelRelease,
    channel: Channel,
    around: _Around,
) -> Sentence:
    version, candidate = wish.version, slot.candidate
    serves = slot.serving is not None and slot.serving.manifest_sha256 == wish.manifest_sha256
    if serves and slot.state == "committed":
        return Sentence(slot=slot.slot, text=f"runs {version}, committed: nothing is due")
    if serves and slot.state in ("rejected", "rolled_back") and candidate is not None:
        sentence = _explain_failure(report, slot, candidate.version, around.others)
        return Sentence(slot=slot.slot, text=f"runs {version}, as it should; it {sentence.text}", next=sentence.next)
    if candidate is None or candidate.manifest_sha256 != wish.manifest_sha256:
        if (refusal := around.refused.get(slot.slot)) is not None:
            why, step = _REFUSED.get(refusal.reason, (refusal.text, None))
            return Sentence(slot=slot.slot, text=f"may not have {version} ({refusal.reason}): {why}", next=step)
        held = _kept_from_beginning(report, wish, channel, around)
        if held is not None:
            why, step = _HELD[held]
            return Sentence(slot=slot.slot, text=f"has not begun with {version}: {why}", next=step)
        text = f"has not taken notice of {version} yet (its last report is of {report.time})"
        return Sentence(slot=slot.slot, text=text, next="can it reach a depot? on the device: edgewright agent doctor")
    if slot.state in ("rejected", "rolled_back"):
        return _explain_failure(report, slot, version, around.others)
    if slot.state == "verified" or (slot.state == "offered" and slot.reason == "window"):
        return Sentence(slot=slot.slot, text=_waits(version, channel, around), next=_resume(channel))
    if slot.state == "offered":
        why, step = _HELD.get(
            slot.reason or "", (f"held up by: {slot.reason}" if slot.reason else "about to begin", None)
        )
        return Sentence(slot=slot.slot, text=f"has not begun with {version}: {why}", next=step)
    text = _WORK.get(slot.state, "has {version} in state " + slot.state).format(version=version)
    share = f", {slot.progress:.0%} done" if slot.progress is not None and slot.state == "downloading" else ""
    since = f" since {slot.since}" if slot.since is not None else ""
    return Sentence(slot=slot.slot, text=f"{text}{share}{since}")


def _kept_from_beginning(report: ReportedState, wish: ChannelRelease, channel: Channel, around: _Around) -> str | None:
    """Return what in the signed document keeps a device from beginning; it reports nothing of what it never began."""
    if channel.paused:
        return "paused"
    if wish != channel.candidate:
        return None
    if channel.deadline is not None and around.now > parse_time(channel.deadline, what="channel.deadline"):
        return "deadline"
    rule = channel.availability
    grouped = rule is not None and facts_of(report).value(rule.group) is not None
    return "no-place" if grouped and channel.channel not in around.turns else None


def _waits(version: str, channel: Channel, around: _Around) -> str:
    window, turn = channel.window, around.turns.get(channel.channel)
    if channel.paused:
        return f"has {version} and does not try it: the rollout is paused"
    if window is not None and not window_open(window, around.now.strftime("%H:%M")):
        return f"has {version} and waits for its window, which opens {window.start} UTC"
    if turn is None:
        return f"has {version} and is about to try it"
    wait_s = opens_in_s(turn, window, around.now.timestamp())
    mine = f"turn {turn.index + 1} of {turn.of} among those with its {_group(channel)}"
    when = f"which begins in {duration(wait_s)}" if wait_s else "which is on: it begins if there is time enough left"
    return f"has {version} and waits for its turn: {mine}, {when}{' of open window' if window and wait_s else ''}"


def _group(channel: Channel) -> str:
    return "" if channel.availability is None else channel.availability.group


def _resume(channel: Channel) -> str | None:
    return _HELD["paused"][1] if channel.paused else None


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
