"""What a device that runs the candidate observed, beside devices that do not: evidence for the gates that compare.

A device of the same board and the same tags is a better comparison than another one; each is used once in a rollout, so
that observations stay independent of each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from edge_contracts.telemetry import TelemetryWindow
from edge_fleet.controller.followed_rollout import FollowedRollout
from edge_fleet.database.rollouts import Participant, RolloutStore
from edge_fleet.evidence.gates import FAILURES, GateRule, Observation, measure

CONTROLS = 4
"""Devices that one candidate is compared with: more make its observation quieter and leave fewer for the next."""

LOOKED_AT = 32
"""Devices whose windows are read at most to find them."""


def compare(
    store: RolloutStore, followed: FollowedRollout, one: Participant, rules: Iterable[GateRule]
) -> tuple[list[Observation], list[str]]:
    """Return the observations that a device gives, and the devices it was compared with."""
    judged = [rule for rule in rules if rule.name != FAILURES]
    after = one.message or 0
    plan = followed.planned.plan
    version, seen = plan.version, _of_model(store, one.device, after, plan.model)
    own = [window for window in seen if window.version == version or window.shadow]
    found = [_alone(rule, one, own) for rule in judged if not rule.compares]
    comparing = [rule for rule in judged if rule.compares]
    serving = [window for window in own if window.version == version]
    if not comparing or not serving:
        return [each for each in found if each is not None], []
    others = _others(store, followed, one, after)
    found += [_against(rule, one, serving, others) for rule in comparing]
    return [each for each in found if each is not None], sorted(others)


def _of_model(store: RolloutStore, device: str, after: int, model: str) -> list[TelemetryWindow]:
    """Return a device's windows of one model: its other slots serve something else."""
    return [window for window in store.windows(device, after) if window.model == model]


def _alone(rule: GateRule, one: Participant, windows: Sequence[TelemetryWindow]) -> Observation | None:
    value = measure(rule.name, windows)
    return None if value is None else Observation(gate=rule.name, device=one.device, value=value, text=f"{value:.4g}")


def _against(
    rule: GateRule, one: Participant, own: Sequence[TelemetryWindow], others: Mapping[str, list[TelemetryWindow]]
) -> Observation | None:
    value = measure(rule.name, own)
    beside = [found for windows in others.values() if (found := measure(rule.name, windows)) is not None]
    if value is None or not beside:
        return None
    mean = sum(beside) / len(beside)
    text = f"{value:.4g} beside {mean:.4g} of {len(beside)} devices"
    return Observation(gate=rule.name, device=one.device, value=value - mean, text=text)


def _others(
    store: RolloutStore, followed: FollowedRollout, one: Participant, after: int
) -> dict[str, list[TelemetryWindow]]:
    """Return windows, over the same time, of devices that do not run the candidate and were not compared yet."""
    planned, mine = followed.planned, followed.roster.get(one.device)
    if mine is None:  # it left the channel
        return {}
    found: dict[str, list[TelemetryWindow]] = {}
    for other in islice(followed.free.likest(mine, followed.roster), LOOKED_AT):
        seen = _of_model(store, other.device, after, planned.plan.model)
        windows = [window for window in seen if window.version not in (None, planned.plan.version)]
        if windows:
            found[other.device] = windows
        if len(found) == CONTROLS:
            break
    return found
