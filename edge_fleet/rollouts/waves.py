"""Who is in a wave, and how far it is: from what devices last reported. Pure; what follows is `plan_state`'s."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from edge_contracts.channel import Strata
from edge_contracts.selection import Facts, bucket, matches, reach, stratum
from edge_contracts.selector import Selector
from edge_contracts.state import ReportedState
from edge_fleet.database.rollouts import Participant, SlotChange
from edge_fleet.rollouts.plan import ShadowStep, WaveStep

Standing = Literal["passed", "failed", "busy", "waiting", "offline"]

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
    roster: Iterable[SlotChange],
    selectors: tuple[Selector, ...],
    rollout: str,
    percentage: float,
    strata: Strata | None = None,
) -> list[SlotChange]:
    """Return the devices that select themselves into a wave."""
    return [one for one in roster if is_member(one, selectors, bucket(rollout, one.device), percentage, strata)]


def is_member(
    one: SlotChange, selectors: tuple[Selector, ...], place: float, percentage: float, strata: Strata | None
) -> bool:
    """Return whether a device with this place in the rollout (its `bucket`) selects itself into a wave."""
    return (
        (strata is not None or place < percentage)
        and matches(selectors, facts := facts_of(one))
        and place < reach(percentage, strata, facts)
    )


def strata_for(
    step: WaveStep | ShadowStep,
    roster: Iterable[SlotChange],
    selectors: tuple[Selector, ...],
    rollout: str,
    before: Strata | None,
) -> Strata | None:
    """Return how far a step reaches in each stratum, so that each has its share of the wave and at least one device if
    there are enough; no stratum is reached less far than `before`. None for a step that reaches everybody."""
    names = step.strata or (() if before is None else before.facts)
    if not names or step.percent == 100.0:
        return None
    places: dict[str, list[float]] = {}
    for one in members(roster, selectors, rollout, 100.0):
        places.setdefault(stratum(names, facts_of(one)), []).append(bucket(rollout, one.device))
    wanted = _seats({name: len(found) for name, found in places.items()}, step)
    reached = {} if before is None or before.facts != names else dict(before.percentages)
    for name, found in places.items():
        reached[name] = max(_place_of(sorted(found), wanted[name]), reached.get(name, 0.0))
    return Strata(facts=names, percentages=reached)


def _seats(sizes: Mapping[str, int], step: WaveStep | ShadowStep) -> dict[str, int]:
    """Return how many devices of each stratum a step takes: their share, rounded so that the sum is the step's."""
    whole = sum(sizes.values())
    total = min(whole, step.count if step.count is not None else math.ceil(whole * (step.percent or 0.0) / 100.0))
    exact = {name: total * size / whole for name, size in sizes.items()}
    seats = {name: int(share) for name, share in exact.items()}
    for name in sorted(exact, key=lambda name: (seats[name] > 0, seats[name] - exact[name], name)):
        if sum(seats.values()) < total and seats[name] < sizes[name]:
            seats[name] += 1
    while total >= len(sizes) and (without := [name for name in sorted(seats) if not seats[name]]):
        seats[max(sorted(seats), key=lambda name: seats[name])] -= 1
        seats[without[0]] += 1
    return seats


def _place_of(places: Sequence[float], count: int) -> float:
    """Return the smallest percentage that takes in `count` of the sorted places."""
    if not count:
        return 0.0
    return 100.0 if len(places) <= count else min(math.nextafter(places[count - 1], 100.0), 100.0)


def percentage_for(
    step: WaveStep | ShadowStep, roster: Iterable[SlotChange], selectors: tuple[Selector, ...], rollout: str
) -> float:
    """Return the percentage of a step: its own, or the smallest that takes in its `count` of the devices known now."""
    if step.percent is not None:
        return step.percent
    assert step.count is not None
    places = sorted(bucket(rollout, one.device) for one in members(roster, selectors, rollout, 100.0))
    if step.strata:  # of strata nobody knows yet
        return min(100.0, 100.0 * step.count / max(1, len(places)))
    return _place_of(places, step.count)


def standing_of(
    device: SlotChange, one: Participant | None, step: WaveStep | ShadowStep, shadow_requests: int
) -> Standing:
    """Return how a device of a wave stands; `one` is what it said about the rollout."""
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
