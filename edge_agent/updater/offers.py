"""What the updater tells a slot of the release it should run: an offer, a hold, or nothing. Pure."""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.ipc.updater import GOVERNOR, NO_PLACE, Hold, Offer, SlotPlan
from edge_agent.update.record import CandidateRelease
from edge_agent.update.selection import retry_due
from edge_contracts.channel import Channel, ChannelRelease
from edge_contracts.selection import Facts
from edge_contracts.turns import DeviceTurn


def offer_of(
    slot: SlotPlan,
    channel: Channel,
    wish: ChannelRelease,
    device: str,
    *,
    may_install: bool,
    facts: Callable[[], str],
    now: float,
    turn: DeviceTurn | None = None,
    placed: bool = True,
) -> Offer | Hold | None:
    """Return what the slot hears of `wish` at `now` (seconds since the epoch): None while it was given up here and
    nothing lets it try again. `turn` is the device's own among those of its group; one that is not `placed` has none
    yet and waits with what is new, while what is stable is for everybody. `facts` names the facts about the device; it
    is asked only if that matters."""
    sha256, again, retry = wish.manifest_sha256, _again(slot, channel, device), False
    if sha256 in slot.rejected and not (channel.serial != slot.serial and again):
        under = slot.refused_under.get(sha256)
        retry = retry_due(channel.retries, slot.reason, slot.retried.get(sha256, 0), now - slot.since)
        if not retry and (under is None or under == facts()):
            return None
    offered = wish == channel.candidate
    if offered and not placed and sha256 not in slot.ready:
        return Hold(slot=slot.slot, reason=NO_PLACE)
    if sha256 not in slot.ready and not may_install:
        return Hold(slot=slot.slot, reason=GOVERNOR, version=wish.version)
    candidate = CandidateRelease(
        model=channel.model,
        version=wish.version,
        manifest_sha256=sha256,
        channel=channel.channel,
        serial=channel.serial,
        rollout=channel.rollout if offered else None,
        again=again,
        mode=channel.mode if offered else "live",
        gates=channel.gates,
        window=channel.window,
        turn=turn,
        paused=channel.paused,
    )
    return Offer(slot=slot.slot, candidate=candidate, retry=retry)


def _again(slot: SlotPlan, channel: Channel, device: str) -> bool:
    """Return whether another document of the channel lets what was rejected here try again: any does, but one that was
    signed for a retry on other devices."""
    retry = channel.retry
    if retry is None or retry.serial != channel.serial:
        return True
    device_fits = not retry.devices or device in retry.devices
    return device_fits and (not retry.reasons or slot.reason in retry.reasons)


def lacks_place(channel: Channel, facts: Facts, turn: DeviceTurn | None) -> bool:
    """Return whether the device is in a group that takes turns, and has none."""
    rule = channel.availability
    return rule is not None and turn is None and facts.value(rule.group) is not None
