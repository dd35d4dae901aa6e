"""Which of two models is faster, and by how much, or that there is no real difference. Measured in pairs, or from the
raw samples of two reports.

A process's place in memory alone makes it a few percent faster or slower than another of the same model, all its life.
So each pair of processes is one observation, however often it was asked, and several pairs are started one after
another. Within a pair, short turns of both, in random order, see the same machine.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_bench.measure import Runner
from edge_bench.protocol import RunnerPlan
from edge_bench.report import SubjectReport
from edge_bench.stats import binomial_cdf
from edge_contracts.codec import StrictRecord
from edge_contracts.errors import OperatorError

Floats = NDArray[np.float64]

MIN_PAIRS = 8
"""Pairs of processes at the least: of eight, the interval leaves out the most extreme at each end in 0.8 % of cases."""

MAX_PAIRS = 40
TURNS = 6
"""Turns of each process of a pair."""

TURN_S = 0.06
"""Length of a turn in seconds; a slow model answers once all the same."""

CONFIDENCE = 0.98
LEAST = 0.01
"""Ratios within so much of 1 are no real difference, however sure they are."""

RESAMPLES = 4000


class LatencyComparison(StrictRecord, frozen=True, kw_only=True):
    """What two models cost each other. `ratio` is the latency of B over that of A, with its interval; `verdict` names
    the faster one, "none" where there is no real difference. `ratios` are the observations behind it."""

    schema: int = 1
    a: str
    b: str
    verdict: Literal["none", "a", "b"]
    ratio: float
    low: float
    high: float
    confidence: float
    interleaved: bool
    a_ms: float
    b_ms: float
    pairs: int
    seconds: float
    ratios: tuple[float, ...]


def compare_models(
    names: tuple[str, str], plans: tuple[RunnerPlan, RunnerPlan], seconds: float, seed: int
) -> LatencyComparison:
    """Measure two models in pairs of processes for about `seconds`, and at least `MIN_PAIRS` of them.

    Raises RunnerError for a model that cannot be measured.
    """
    chance = random.Random(seed)  # noqa: S311
    start = time.monotonic()
    logs: list[float] = []
    medians: tuple[list[float], list[float]] = ([], [])
    while len(logs) < MIN_PAIRS or (time.monotonic() - start < seconds and len(logs) < MAX_PAIRS):
        a_ms, b_ms = _one_pair(plans, chance)
        logs.append(float(np.median(np.log(b_ms) - np.log(a_ms))))
        medians[0].append(float(np.median(a_ms)))
        medians[1].append(float(np.median(b_ms)))
    low, high = median_bounds(logs, CONFIDENCE)
    return _comparison(names, (float(np.median(logs)), low, high), medians, logs, time.monotonic() - start, pairs=True)


def compare_reports(
    names: tuple[str, str], subjects: tuple[SubjectReport, SubjectReport], seed: int
) -> LatencyComparison:
    """Compare two measurements by the medians of their rounds. They were not interleaved: what the machine did
    differently then and then is in the result. Raises OperatorError for a report without raw samples."""
    rounds = []
    for name, subject in zip(names, subjects, strict=True):
        found = [np.log(np.median(one)) for one in subject.rounds_ms if one]
        if len(found) < 3:
            raise OperatorError("holds no raw samples of at least three rounds", subject=name)
        rounds.append(np.array(found))
    draws = np.random.default_rng(seed)
    means = [_resampled_medians(one, draws) for one in rounds]
    tail = (1.0 - CONFIDENCE) / 2
    low, high = np.quantile(means[1] - means[0], (tail, 1.0 - tail))
    middle = float(np.median(rounds[1]) - np.median(rounds[0]))
    medians = ([float(np.exp(value)) for value in rounds[0]], [float(np.exp(value)) for value in rounds[1]])
    return _comparison(names, (middle, float(low), float(high)), medians, [middle], 0.0, pairs=False)


def median_bounds(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """Return an interval that holds the median of where the values come from with at least the given probability,
    whatever their distribution: two of the sorted values (Conover, "Practical Nonparametric Statistics", 3.2)."""
    ordered = sorted(values)
    out = 0
    while out + 1 < len(ordered) / 2 and 2.0 * binomial_cdf(out, len(ordered), 0.5) <= 1.0 - confidence:
        out += 1
    cut = max(out - 1, 0)
    return ordered[cut], ordered[-1 - cut]


def _one_pair(plans: tuple[RunnerPlan, RunnerPlan], chance: random.Random) -> tuple[Floats, Floats]:
    """Return the medians of each turn of two new processes, in milliseconds."""
    order = [0, 1]
    chance.shuffle(order)
    turns: tuple[list[float], list[float]] = ([], [])
    with Runner(plans[order[0]]) as first, Runner(plans[order[1]]) as second:
        runners = {order[0]: first, order[1]: second}
        for which in order:
            runners[which].measure(TURN_S)  # caches and branch predictors know it now
        for _ in range(TURNS):
            chance.shuffle(order)
            for which in order:
                turns[which].append(float(np.median(runners[which].measure(TURN_S))))
    return np.array(turns[0]), np.array(turns[1])


def _resampled_medians(values: Floats, draws: np.random.Generator) -> Floats:
    found: Floats = np.median(draws.choice(values, (RESAMPLES, values.size)), axis=1)
    return found


def _comparison(
    names: tuple[str, str],
    logs: tuple[float, float, float],
    medians: tuple[list[float], list[float]],
    ratios: list[float],
    seconds: float,
    *,
    pairs: bool,
) -> LatencyComparison:
    ratio, low, high = (math.exp(value) for value in logs)
    small = abs(ratio - 1.0) < LEAST
    verdict: Literal["none", "a", "b"] = "none" if small or low <= 1.0 <= high else ("a" if ratio > 1.0 else "b")
    return LatencyComparison(
        a=names[0],
        b=names[1],
        verdict=verdict,
        ratio=ratio,
        low=low,
        high=high,
        confidence=CONFIDENCE,
        interleaved=pairs,
        a_ms=float(np.median(medians[0])),
        b_ms=float(np.median(medians[1])),
        pairs=len(ratios) if pairs else 0,
        seconds=round(seconds, 3),
        ratios=tuple(math.exp(value) for value in ratios),
    )


def sentence(found: LatencyComparison) -> str:
    """Return the result for people."""
    sure = f"{found.confidence:.0%} interval of the ratio B/A {found.low:.3f} to {found.high:.3f}"
    seen = f"A {found.a} {found.a_ms:.3f} ms, B {found.b} {found.b_ms:.3f} ms"
    how = f"{found.pairs} pairs of processes" if found.interleaved else "two runs, not interleaved"
    if found.verdict == "none":
        return f"No real difference: {seen} ({sure}; {how})."
    times = found.ratio if found.verdict == "a" else 1.0 / found.ratio
    return f"{found.verdict.upper()} is faster, {times:.3f} times: {seen} ({sure}; {how})."
