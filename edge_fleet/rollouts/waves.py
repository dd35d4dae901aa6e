"""Who is in a wave, and how far it is: from what devices last reported. Pure; what follows is `plan_state`'s."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from edge_contracts.selection import Facts, bucket, matches
from edge_contracts.selector import Selector
from edge_contracts.state import ReportedState
from edge_fleet.database.rollouts import Participant, SlotChange
from edge_fleet.rollouts.plan import ShadowStep, WaveStep
from edge_fleet.rollouts.plan_state import StepProgress

AT_WORK = frozenset({"preflight", "downloading", "verified", "trial", "shadow", "active"})
GIVEN_UP = frozenset({"rejected", "rolled_back"})


def worst(slots: Iterable[SlotChange], rollout: str, manifest: str) -> SlotChange:
    """Return the report that stands for a device with several slots on the channel: it has failed when one of them
    has, and is done when all are."""

    def rank(one: SlotChange) -> int:
        if (one.rollout, one.manifest) != (rollout, manifest):
            return 1
        if one.state in GIVEN_UP:
            return 3
        return 2 if one.state in AT_WORK else int(one.state != "committed")

    return max(slots, key=lambda one: (rank(one), one.id))


def facts_of(report: SlotChange | ReportedState) -> Facts:
    """Return what selectors ask about a device, as it reported it."""
    return Facts(
        device=report.device,
        board=report.board,
        architecture=report.architecture,
        tags=report.tags,
        measured=report.facts,
    )


def members(
    roster: Iterable[SlotChange], selectors: tuple[Selector, ...], rollout: str, percentage: float
) -> list[SlotChange]:
    """Return the devices that select themselves into a wave."""
    return [one for one in roster if bucket(rollout, one.device) < percentage and matches(selectors, facts_of(one))]


def percentage_for(
    step: WaveStep | ShadowStep, roster: Iterable[SlotChange], selectors: tuple[Selector, ...], rollout: str
) -> float:
    """Return the percentage of a step: its own, or the smallest that takes in its `count` of the devices known now."""
    if step.percent is not None:
        return step.percent
    assert step.count is not None
    places = sorted(bucket(rollout, one.device) for one in members(roster, selectors, rollout, 100.0))
    return 100.0 if len(places) <= step.count else min(math.nextafter(places[step.count - 1], 100.0), 100.0)


def progress_of(
    wave: Iterable[SlotChange],
    participants: Mapping[str, Participant],
    step: WaveStep | ShadowStep,
    shadow_requests: int,
) -> StepProgress:
    """Return how far a step is."""
    counts = {"passed": 0, "failed": 0, "busy": 0, "waiting": 0, "offline": 0}
    for device in wave:
        counts[_standing(device, participants.get(device.device), step, shadow_requests)] += 1
    return StepProgress(**counts)


def _standing(device: SlotChange, one: Participant | None, step: WaveStep | ShadowStep, shadow_requests: int) -> str:
    if one is not None and one.state == "committed" and one.observed:
        return "passed"
    if one is not None and isinstance(step, ShadowStep) and passed_shadow(one, shadow_requests):
        return "passed"
    if one is not None and (one.state in GIVEN_UP or (one.outcome == "failed" and one.state != "committed")):
        return "failed"
    if device.online is False:
        return "offline"
    return "busy" if one is not None and (one.state in AT_WORK or one.state == "committed") else "waiting"


def passed_shadow(one: Participant, shadow_requests: int) -> bool:
    """Return whether a device has compared as many requests as its shadow asks for."""
    return one.state == "shadow" and one.compared >= shadow_requests
