"""The ladder: which candidates go into the bundle and in which order. Pure decisions over measured numbers.

A candidate is kept when it is within the drop limit, worth having beside the original, and no kept one is at least as
good in every respect: what it has over each other one must be beyond the interval of the paired comparison
(`rung_merit`). Order is what the profile prefers; the float original is the last and safest rung.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Preference = Literal["latency", "size", "memory", "balanced"]

LATENCY_STEP = 1.05
MEMORY_STEP, MEMORY_LEAST_MB = 1.10, 0.5
SIZE_STEP, SIZE_LEAST, ENTRY = 1.05, 512, 2048
"""Ratios below which nobody would change a rung: a process's peak memory repeats within 10 % and half a megabyte,
latencies of another day within 5 %; bytes are exact, but five percent, or five hundred, are no reason for another
rung, and with its entry in the manifest a rung weighs two thousand however small its file is."""

RANK_STEP = 1.05
"""Ratio of the preferred costs below which what loses less goes first: accuracy is not given up for a difference that
the next measurement may turn round."""

MAX_RUNGS = 4
"""Rungs besides which nothing is gained: every one is bytes that each device has to fetch and try."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a candidate costs and how good it is: `latency_ms` the median, `size` in bytes, `memory_mb` the peak.
    `bound` is what it loses at most with the confidence asked for, in points; None where only `drop` counts."""

    score: float
    drop: float
    latency_ms: float
    size: int
    memory_mb: float
    bound: float | None = None

    @property
    def loss(self) -> float:
        """What is lost with the confidence asked for: of two that lose as much here, the one that answers as the
        original more often has proved it better."""
        return self.drop if self.bound is None else self.bound


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What holds for every rung: what may be lost in `unit`, bytes, milliseconds and megabytes of memory it may take
    (None: no bound); and the bytes of all rungs together. `accept_undecided` lets in rungs of which the samples cannot
    say whether they lose more."""

    max_drop: float
    disk_bytes: int
    max_size: int | None = None
    max_latency_ms: float | None = None
    max_memory_mb: float | None = None
    accept_undecided: bool = False
    unit: str = "points"

    def objection(self, costs: Costs) -> str | None:
        """Return which limit a candidate does not keep, or None."""
        if exceeds(costs.drop, self.max_drop):
            return f"loses {costs.drop:.2f} {self.unit}, limit {self.max_drop:g}"
        if self.max_size is not None and costs.size > self.max_size:
            return f"{costs.size} bytes, limit {self.max_size}"
        if self.max_latency_ms is not None and costs.latency_ms > self.max_latency_ms:
            return f"takes {costs.latency_ms:.3g} ms, limit {self.max_latency_ms:g}"
        if self.max_memory_mb is not None and costs.memory_mb > self.max_memory_mb:
            return f"takes {costs.memory_mb:.1f} MB of memory, limit {self.max_memory_mb:g}"
        if costs.bound is not None and exceeds(costs.bound, self.max_drop) and not self.accept_undecided:
            return undecided(costs.drop, costs.bound, self.max_drop, self.unit)
        return None


def loses(drop: float, unit: str = "points") -> str:
    """Return in words what a drop is, a negative one too."""
    return f"gains {-drop:.2f} {unit}" if round(drop, 2) < 0 else f"loses {abs(drop):.2f} {unit}"


UNDECIDED = "undecided"
"""How the reason of every candidate begins that only --accept-undecided would keep."""


def undecided(drop: float, bound: float, limit: float, unit: str = "points") -> str:
    """Return in words that the samples cannot decide a limit, all three in one unit."""
    return (
        f"{UNDECIDED}: loses {drop:.2f} {unit} here, but with the confidence asked for at most {bound:.2f}, and "
        f"{limit:g} is the limit; keep it with --accept-undecided"
    )


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The rungs in order, and why each other candidate is not among them."""

    rungs: tuple[str, ...]
    left_out: dict[str, str]


class Merits(Protocol):
    """What the paired comparisons of candidates say, by their names."""

    def loses_less(self, a: str, b: str) -> bool:
        """Return whether `a` loses less than `b`, beyond the paired interval."""
        ...

    def faster(self, a: str, b: str) -> bool:
        """Return whether `a` is faster than `b`, beyond the paired interval."""
        ...


ORIGINAL = "original"
"""The given model's name beside those of candidates."""


def build_ladder(
    candidates: Mapping[str, Costs],
    original: Costs,
    limits: Limits,
    merits: Merits,
    *,
    prefer: Preference,
    float_id: str,
) -> Ladder:
    """Choose the rungs; `merits` knows the candidates and `ORIGINAL`. `float_id` is the candidate that is the float
    original itself; it is the last rung unless it is over a limit that another rung keeps."""
    left_out: dict[str, str] = {}
    worthy: list[str] = []
    for name in _in_order([name for name in candidates if name != float_id], candidates, original, prefer):
        reason = limits.objection(candidates[name]) or _pointless(name, candidates, original, worthy, merits)
        if reason is not None:
            left_out[name] = reason
            continue
        beaten = [other for other in worthy if not advantage(other, name, candidates, merits)]
        left_out |= dict.fromkeys(beaten, f"{name} is at least as good in every respect")
        worthy = [other for other in worthy if other not in beaten] + [name]
    kept = _varied(worthy, candidates, limits.disk_bytes - candidates[float_id].size, limits.disk_bytes, left_out)
    reason = limits.objection(candidates[float_id])
    if reason is None and candidates[float_id].size > limits.disk_bytes:
        reason = "over the profile's disk budget"
    if reason is not None and kept:
        left_out[float_id] = reason
    else:
        kept.append(float_id)
    return Ladder(rungs=tuple(kept), left_out=left_out)


def _varied(
    worthy: Sequence[str], candidates: Mapping[str, Costs], room: int, disk_bytes: int, left_out: dict[str, str]
) -> list[str]:
    """Return which of the worthy, who come in order, become rungs: the first, then the fastest and the smallest where
    they are clearly so, then the next. Why another does not is put into `left_out`."""

    def best(cost: Callable[[Costs], float], step: float) -> str:
        found = min(worthy, key=lambda name: cost(candidates[name]))
        return found if _cheaper(cost(candidates[found]), cost(candidates[worthy[0]]), step) else worthy[0]

    if not worthy:
        return []
    fastest = best(lambda costs: costs.latency_ms, LATENCY_STEP)
    smallest = best(lambda costs: costs.size, SIZE_STEP)
    left = room if room >= 0 else disk_bytes  # an original that is over the budget alone takes nothing of it
    chosen: set[str] = set()
    for name in dict.fromkeys([worthy[0], fastest, smallest, *worthy]):
        if len(chosen) >= MAX_RUNGS - 1:
            left_out[name] = f"the ladder is full ({MAX_RUNGS} variants)"
        elif candidates[name].size > left:
            left_out[name] = "no room left in the profile's disk budget"
        else:
            chosen.add(name)
            left -= candidates[name].size
    return [name for name in worthy if name in chosen]


def _pointless(
    name: str, candidates: Mapping[str, Costs], original: Costs, kept: Sequence[str], merits: Merits
) -> str | None:
    """Return why a candidate within the limits is not worth its bytes, or None."""
    costs = candidates[name]
    cheaper = _smaller(costs, original) or _leaner(costs, original)
    if not cheaper and not merits.faster(name, ORIGINAL):
        return "neither faster nor smaller than the original"
    for other in kept:
        if not advantage(name, other, candidates, merits):
            return f"{other} is at least as good in every respect"
    return None


def advantage(a: str, b: str, candidates: Mapping[str, Costs], merits: Merits) -> bool:
    """Return whether `a` has anything over `b`: less loss, latency, bytes or memory, beyond measuring accuracy."""
    own, other = candidates[a], candidates[b]
    return _smaller(own, other) or _leaner(own, other) or merits.faster(a, b) or merits.loses_less(a, b)


def _smaller(a: Costs, b: Costs) -> bool:
    least = max(a.size, ENTRY)
    return _cheaper(least, b.size, SIZE_STEP) and least + SIZE_LEAST < b.size


def _leaner(a: Costs, b: Costs) -> bool:
    return _cheaper(a.memory_mb, b.memory_mb, MEMORY_STEP) and a.memory_mb + MEMORY_LEAST_MB < b.memory_mb


def exceeds(drop: float, limit: float) -> bool:
    """Return whether a drop is over the limit, rounding of the subtraction that made it aside."""
    return drop > limit + 1e-9


PACE_STEP = 1.25
"""Ratio below which two latencies of a few turns each beside running builds are not told apart."""


@dataclass(frozen=True, kw_only=True)
class PreliminaryMeasurement:
    """What is known of a candidate before it is timed alone: `loss` as in `Costs`, `pace` is its latency relative to
    the original's."""

    loss: float
    size: int
    pace: float


def shortlist(
    seen: Mapping[str, PreliminaryMeasurement], wanted: int, *, prefer: Preference
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return which candidates are worth timing alone, at most `wanted`, and why the others are not.

    First come those that no other beats in every respect, pace with a wide margin: the best by the preference, by size,
    by pace and by loss in turn. Beaten ones follow, the fastest first, as long as there is room: a busy machine makes
    any pace look better than it is.
    """
    beaten: dict[str, str] = {}
    rest: list[str] = []
    for name in sorted(seen, key=lambda name: (seen[name].loss, seen[name].size, seen[name].pace, name)):
        better = next((other for other in rest if _outpaces(seen[other], seen[name])), None)
        if better is None:
            rest.append(name)
        else:
            beaten[name] = f"{better} loses no more, is no larger and clearly faster"
    orders = [sorted(rest, key=key) for key in _orders(seen, prefer)]
    turns = [name for turn in zip(*orders, strict=True) for name in turn]
    chosen = list(dict.fromkeys([*turns, *sorted(beaten, key=lambda name: seen[name].pace)]))
    left_out = {name: beaten.get(name, f"{wanted} others measured better") for name in chosen[wanted:]}
    return tuple(chosen[:wanted]), left_out


def dominates_preliminarily(a: PreliminaryMeasurement, b: PreliminaryMeasurement) -> bool:
    """Return whether `a` is as good as `b` in loss, size and pace, and better in one of them."""
    pairs = ((a.loss, b.loss), (a.size, b.size), (a.pace, b.pace))
    return all(own <= other for own, other in pairs) and any(own < other for own, other in pairs)


def _outpaces(a: PreliminaryMeasurement, b: PreliminaryMeasurement) -> bool:
    return a.loss <= b.loss and a.size <= b.size * SIZE_STEP and a.pace * PACE_STEP < b.pace


def _orders(seen: Mapping[str, PreliminaryMeasurement], prefer: Preference) -> list[Callable[[str], float]]:
    def by_loss(name: str) -> float:
        return seen[name].loss

    def by_size(name: str) -> float:
        return seen[name].size

    def by_pace(name: str) -> float:
        return seen[name].pace

    def balanced(name: str) -> float:
        return seen[name].pace * seen[name].size

    first = {"latency": by_pace, "size": by_size, "memory": by_size, "balanced": balanced}[prefer]
    return [first, balanced, by_size, by_pace, by_loss]


def _cheaper(a: float, b: float, step: float) -> bool:
    return a * step < b


def _in_order(names: Sequence[str], candidates: Mapping[str, Costs], original: Costs, prefer: Preference) -> list[str]:
    """Return the names, cheapest first by the preference; among those as cheap as the cheapest left, the least loss."""
    rank = {name: _rank(candidates[name], original, prefer) for name in names}
    left, order = sorted(names), []
    while left:
        limit = RANK_STEP * min(rank[name] for name in left)
        near = [name for name in left if rank[name] <= limit]
        best = min(near, key=lambda name: (candidates[name].loss, rank[name]))
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
