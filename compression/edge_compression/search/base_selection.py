"""Which recipe is varied next: spends trials where they can win. Pure decisions over what was tried; drawing the
values of a variation is the study's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge_compression.evaluation.pareto import PACE_STEP, SIZE_STEP, PreliminaryMeasurement

EXPLORE_EVERY = 5
"""One variation in so many is of a recipe that has not been within the limit yet: another value may bring it there."""

FAINT = 0.25
"""What a base without a trial on the front counts for, against one for each of those that are: it is not forgotten."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One trial of a base or of a variation of it. `costs` are drop, size and pace, None where nothing could be judged;
    `within`: the limits are kept."""

    base: str
    costs: tuple[float, ...] | None
    within: bool = False


def next_base(bases: Sequence[str], tried: Sequence[Tried]) -> str | None:
    """Return the base to vary next, or None when there is none: what was not judged is not varied.

    Of the bases that were within the limit, the one with the fewest trials for each of its trials on the front; now
    and then, or when none was within, the least tried of the others. The first of equals is chosen.
    """
    front = _front([one for one in tried if one.within])
    count = {base: sum(one.base == base for one in tried) for base in bases}
    wins = {base: sum(one.base == base for one in front) for base in bases}
    judged = {one.base for one in tried if one.costs is not None}
    good = {one.base for one in tried if one.within}
    hopeful = [base for base in bases if base in good]
    doubtful = [base for base in bases if base not in good and base in judged]
    if doubtful and (not hopeful or len(tried) % EXPLORE_EVERY == 0):
        return min(doubtful, key=lambda base: count[base])
    return min(hopeful, key=lambda base: count[base] / max(wins[base], FAINT), default=None)


def _front(within: Sequence[Tried]) -> list[Tried]:
    return [one for one in within if not any(_dominates(other, one) for other in within)]


def _dominates(a: Tried, b: Tried) -> bool:
    if a.costs is None or b.costs is None:
        return False
    return a.costs != b.costs and all(own <= other for own, other in zip(a.costs, b.costs, strict=True))


PATIENCE, FORESEEN = 8.0, 0.25
"""Variations in a row that win nothing before there are no more, and what one counts for that was not built: its effect
was known."""

GAIN = 0.25
"""Share of what may be lost by which a variation must lose less to have won something: less is the samples' luck."""


def wins(one: PreliminaryMeasurement, others: Iterable[PreliminaryMeasurement], max_drop: float) -> bool:
    """Return whether a candidate has something over each other one, by what is known before timing alone."""
    step = GAIN * max(max_drop, 0.0)
    return one.loss <= max_drop and not any(
        other.loss <= one.loss + step and other.size <= one.size * SIZE_STEP and other.pace <= one.pace * PACE_STEP
        for other in others
    )
