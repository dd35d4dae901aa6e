"""The ladder: which candidates go into the bundle and in which order. Pure decisions over measured numbers.

A candidate is kept when it is within the drop limit, worth having beside the original, and no kept one is at least as
good in every respect. Order is what the profile prefers; the float original is the last and safest rung.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Preference = Literal["latency", "size", "memory", "balanced"]

LATENCY_STEP = 1.05
MEMORY_STEP = 1.10
SIZE_STEP = 1.01
"""Ratios below which two measurements are not told apart: medians on a shared machine repeat within 5 %, a process's
peak memory within 10 %; bytes are exact, but one percent is no reason for another rung."""

RANK_STEP = 1.05
"""Ratio of the preferred costs below which the better score goes first: accuracy is not given up for a difference that
the next measurement may turn round."""

MAX_RUNGS = 4
"""Rungs besides which nothing is gained: every one is bytes that each device has to fetch and try."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a candidate costs and how good it is: `latency_ms` the median, `size` in bytes, `memory_mb` the peak."""

    score: float
    drop: float
    latency_ms: float
    size: int
    memory_mb: float


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What holds for every rung: points that may be lost and bytes of all rungs together."""

    max_drop: float
    disk_bytes: int


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The rungs in order, and why each other candidate is not among them."""

    rungs: tuple[str, ...]
    left_out: dict[str, str]


def build_ladder(
    candidates: Mapping[str, Costs], original: Costs, limits: Limits, *, prefer: Preference, float_id: str
) -> Ladder:
    """Choose the rungs. `float_id` is the candidate that is the float original itself; it is the last rung unless the
    disk budget has no room for it."""
    left_out: dict[str, str] = {}
    kept: list[str] = []
    room = limits.disk_bytes - candidates[float_id].size
    others = [name for name in candidates if name != float_id]
    for name in _in_order(others, candidates, original, prefer):
        reason = _objection(name, candidates, original, limits, kept)
        if reason is None and len(kept) >= MAX_RUNGS - 1:
            reason = f"the ladder has its {MAX_RUNGS} rungs"
        if reason is None and candidates[name].size > (room if room >= 0 else limits.disk_bytes):
            reason = "no room left in the profile's disk budget"
        if reason is not None:
            left_out[name] = reason
            continue
        kept.append(name)
        room -= candidates[name].size
    if candidates[float_id].size > limits.disk_bytes and kept:
        left_out[float_id] = "over the profile's disk budget"
    else:
        kept.append(float_id)
    return Ladder(rungs=tuple(kept), left_out=left_out)


def _objection(
    name: str, candidates: Mapping[str, Costs], original: Costs, limits: Limits, kept: Sequence[str]
) -> str | None:
    costs = candidates[name]
    if exceeds(costs.drop, limits.max_drop):
        return f"loses {costs.drop:.2f} points, {limits.max_drop:g} are allowed"
    in_bytes = _cheaper(costs.size, original.size, SIZE_STEP)
    in_memory = _cheaper(costs.memory_mb, original.memory_mb, MEMORY_STEP)
    if not (in_bytes or in_memory) and not _cheaper(costs.latency_ms, original.latency_ms, LATENCY_STEP):
        return "neither faster nor smaller than the original"
    for other in kept:
        if dominates(candidates[other], costs):
            return f"{other} is at least as good in every respect"
    return None


def exceeds(drop: float, limit: float) -> bool:
    """Return whether a drop is over the limit, rounding of the subtraction that made it aside."""
    return drop > limit + 1e-9


def dominates(a: Costs, b: Costs) -> bool:
    """Return whether `a` is at least as good as `b` in score, latency, size and memory, within measuring accuracy."""
    return (
        a.score >= b.score
        and a.latency_ms <= b.latency_ms * LATENCY_STEP
        and a.size <= b.size * SIZE_STEP
        and a.memory_mb <= b.memory_mb * MEMORY_STEP
    )


def _cheaper(a: float, b: float, step: float) -> bool:
    return a * step < b


def _in_order(names: Sequence[str], candidates: Mapping[str, Costs], original: Costs, prefer: Preference) -> list[str]:
    """Return the names, cheapest first by the preference; among those as cheap as the cheapest left, the best score."""
    rank = {name: _rank(candidates[name], original, prefer) for name in names}
    left, order = sorted(names), []
    while left:
        limit = RANK_STEP * min(rank[name] for name in left)
        near = [name for name in left if rank[name] <= limit]
        best = min(near, key=lambda name: (-candidates[name].score, rank[name]))
        order.append(best)
        left.remove(best)
    return order


def _rank(costs: Costs, original: Costs, prefer: Preference) -> float:
    """Return the geometric mean of the preferred costs' ratios to the original's."""
    ratios = {
        "latency": costs.latency_ms / original.latency_ms,
        "size": costs.size / original.size,
        "memory": costs.memory_mb / original.memory_mb,
    }
    wanted = list(ratios.values()) if prefer == "balanced" else [ratios[prefer]]
    return math.prod(wanted) ** (1 / len(wanted))
