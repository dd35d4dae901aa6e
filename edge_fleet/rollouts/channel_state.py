"""The decisions of a rollout: which change a channel allows now, and the document that follows. Nothing acts here.

A channel is idle (no candidate), running, or paused. `ALLOWED` is the whole state machine; each verb is a function
from a channel to the next one, each under the next serial. Signing and recording are in `edge_fleet.rollouts.rollout`.
"""

from __future__ import annotations

from typing import Literal

from msgspec.structs import replace

from edge_contracts.channel import (
    Availability,
    Channel,
    ChannelRelease,
    Gates,
    MaintenanceWindow,
    Retry,
    RetryRule,
    Strata,
    channel_schema,
    next_serial,
)
from edge_contracts.codec import StrictRecord
from edge_contracts.names import Name, Text, UtcTime, Version
from edge_contracts.selector import Selector
from edge_contracts.turns import is_roster
from edge_fleet.errors import RolloutError

Phase = Literal["idle", "running", "paused"]
Verb = Literal["start", "pause", "resume", "advance", "abort", "finish", "retry"]
Mode = Literal["shadow", "live"]

ALLOWED: dict[Verb, frozenset[Phase]] = {
    "start": frozenset({"idle"}),
    "pause": frozenset({"running"}),
    "resume": frozenset({"paused"}),
    "advance": frozenset({"running", "paused"}),
    "abort": frozenset({"running", "paused"}),
    "finish": frozenset({"running", "paused"}),
    "retry": frozenset({"idle", "running", "paused"}),
}

MAX_BLOCKED = 64
"""As many as the channel document may hold; the oldest is forgotten, long after the last device left it."""


class Plan(StrictRecord, frozen=True, kw_only=True):
    """What a rollout starts with: which release, of a version that was signed, and who may take it; with `supersede` in
    place of a rollout that runs. Without a name it is called after its serial and version."""

    channel: Name
    model: Name
    version: Version
    name: Name | None = None
    percentage: float = 100.0
    selectors: tuple[Selector, ...] = ()
    mode: Mode = "live"
    gates: Gates = Gates()
    window: MaintenanceWindow | None = None
    deadline: UtcTime | None = None
    retries: tuple[RetryRule, ...] = ()
    availability: Availability | None = None
    strata: Strata | None = None
    supersede: bool = False


class WaveRules(StrictRecord, frozen=True, kw_only=True):
    """What holds for the devices of a wave."""

    gates: Gates
    window: MaintenanceWindow | None
    strata: Strata | None


def phase(channel: Channel) -> Phase:
    """Return which of the three phases a channel is in."""
    if channel.candidate is None:
        return "idle"
    return "paused" if channel.paused else "running"


def check_allowed(verb: Verb, channel: Channel) -> None:
    """Raise RolloutError if the channel's phase does not allow the verb."""
    if phase(channel) in ALLOWED[verb]:
        return
    hints: dict[Phase, str] = {
        "idle": "edgewright fleet rollout start",
        "running": f"rollout {channel.rollout} is running: finish or abort it first, or start with --supersede",
        "paused": f"rollout {channel.rollout} is paused: resume, finish or abort it first, or start with --supersede",
    }
    raise RolloutError(f"cannot {verb} while {phase(channel)}", subject=channel.channel, hint=hints[phase(channel)])


def start(before: Channel | None, plan: Plan, release: ChannelRelease) -> Channel:
    """Offer `release`, the one of the plan's version, as candidate. Raises RolloutError for another model, a blocked or
    an already stable release."""
    channel = before or Channel(channel=plan.channel, model=plan.model, serial=1)
    serial = channel.serial if before is None else next_serial(channel.serial)
    if not plan.supersede:
        check_allowed("start", channel)
    if is_roster(plan.channel):
        raise RolloutError(
            "no channel may be named like that", subject=plan.channel, hint="it may not begin with turns."
        )
    if channel.model != plan.model:
        raise RolloutError(f"this channel is for {channel.model!r}, not {plan.model!r}", subject=plan.channel)
    if channel.stable == release:
        hint = f"for devices that rejected or left it: edgewright fleet rollout retry --channel {plan.channel}"
        raise RolloutError(
            f"{release.version} is already the stable release of this channel", subject=plan.channel, hint=hint
        )
    if release.manifest_sha256 in channel.blocked:
        raise RolloutError(
            f"{release.version} was aborted on this channel",
            subject=plan.channel,
            hint="release it under a new version",
        )
    return replace(
        channel,
        schema=channel_schema(plan.availability),
        serial=serial,
        candidate=release,
        rollout=plan.name or rollout_name(serial, release.version),
        percentage=plan.percentage,
        selectors=plan.selectors,
        mode=plan.mode,
        paused=False,
        gates=plan.gates,
        window=plan.window,
        deadline=plan.deadline,
        retry=None,
        retries=plan.retries,
        availability=plan.availability,
        strata=plan.strata,
    )


def rollout_name(serial: int, version: Version) -> Name:
    """Return what a rollout without a name is called."""
    return f"r{serial}-{version}"


def check_proved(source: Channel | None, name: str, release: ChannelRelease) -> None:
    """Raise RolloutError unless the release is the stable one of the channel it is promoted from."""
    stable = None if source is None else source.stable
    if stable != release:
        there = "nothing" if stable is None else stable.version
        hint = f"finish its rollout there first: edgewright fleet rollout finish --channel {name}"
        raise RolloutError(f"{release.version} is not the stable release here, {there} is", subject=name, hint=hint)


def pause(channel: Channel) -> Channel:
    """Stop new starts; running candidates go on."""
    check_allowed("pause", channel)
    return replace(channel, serial=next_serial(channel.serial), paused=True)


def resume(channel: Channel) -> Channel:
    """Take new starts up again."""
    check_allowed("resume", channel)
    return replace(channel, serial=next_serial(channel.serial), paused=False)


def advance(
    channel: Channel, percentage: float | None = None, mode: Mode | None = None, rules: WaveRules | None = None
) -> Channel:
    """Widen the wave, or let a shadow go live; `rules` are what holds in the wave then. Raises RolloutError for a step
    back, which would flap devices."""
    check_allowed("advance", channel)
    wider = channel.percentage if percentage is None else percentage
    if wider < channel.percentage or (channel.mode == "live" and mode == "shadow"):
        raise RolloutError(
            f"a rollout can only be widened ({channel.percentage:g} % {channel.mode} now)",
            subject=channel.channel,
            hint="pause it, or abort it to roll every device back",
        )
    changes = {} if rules is None else {name: getattr(rules, name) for name in WaveRules.__struct_fields__}
    same = all(getattr(channel, name) == value for name, value in changes.items())
    if wider == channel.percentage and mode in (None, channel.mode) and same:
        raise RolloutError("nothing to advance", subject=channel.channel, hint="give --percent or --mode")
    serial = next_serial(channel.serial)
    return replace(channel, serial=serial, percentage=wider, mode=mode or channel.mode, **changes)


def abort(channel: Channel) -> Channel:
    """Withdraw the candidate and block it: devices that run it go back."""
    check_allowed("abort", channel)
    assert channel.candidate is not None
    blocked = (*channel.blocked, channel.candidate.manifest_sha256)[-MAX_BLOCKED:]
    return replace(_settled(channel), blocked=blocked)


def finish(channel: Channel) -> Channel:
    """Make the candidate stable for the whole channel. Raises RolloutError while it only runs in shadow."""
    check_allowed("finish", channel)
    if channel.mode == "shadow":
        raise RolloutError(
            "the candidate has only run in shadow",
            subject=channel.channel,
            hint="edgewright fleet rollout advance --mode live",
        )
    return replace(_settled(channel), stable=channel.candidate)


def retry(channel: Channel, devices: tuple[Name, ...] = (), reasons: tuple[Text, ...] = ()) -> Channel:
    """Have those devices that rejected or left what the channel offers try it once more: these devices, or those that
    gave one of these reasons, or both. All others leave it at that. Raises RolloutError without anything to try."""
    check_allowed("retry", channel)
    if channel.candidate is None and channel.stable is None:
        raise RolloutError("nothing is offered here", subject=channel.channel, hint="edgewright fleet rollout start")
    if not devices and not reasons:
        raise RolloutError("which devices?", subject=channel.channel, hint="give --device or --reason")
    serial = next_serial(channel.serial)
    return replace(channel, serial=serial, retry=Retry(serial=serial, devices=devices, reasons=reasons))


def _settled(channel: Channel) -> Channel:
    return replace(
        channel,
        serial=next_serial(channel.serial),
        candidate=None,
        rollout=None,
        percentage=100.0,
        selectors=(),
        mode="live",
        paused=False,
        deadline=None,
        retry=None,
        strata=None,
    )
