"""MLPerf's scenarios and its rule of when a run is long enough. Pure.

The rule is the "early stopping" of MLPerf Inference: of `n` queries, at most `t` slower than some latency show with
99 % confidence that less than a share 1 - p of all queries is, when chance would show so few in less than 1 % of runs
in which the share is 1 - p: P(X <= t) < 0.01 for X binomial(n, 1 - p). What follows: single stream (p = 0.9) needs 64
queries, multi stream (p = 0.99) 662. Ours is the sum of LoadGen's own beta function; a test holds the two together.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_contracts.codec import StrictRecord

Floats = NDArray[np.float64]
ScenarioName = Literal["single_stream", "multi_stream", "server", "offline"]

CONFIDENCE = 0.99
OFFLINE_SAMPLES = 24_576
"""Samples of an offline run at the least (MLPerf Inference rules)."""

STREAMS = 8
"""Samples of each query in multi stream."""

TARGETS: dict[ScenarioName, float] = {"single_stream": 0.90, "multi_stream": 0.99, "server": 0.99}
"""The percentile that a scenario is judged by; offline is judged by its throughput."""


class Judgement(StrictRecord, frozen=True, kw_only=True):
    """Whether a run counts. `reasons` say why not, and what to do. `percentile_ms` is the early-stopping estimate of
    the scenario's percentile in milliseconds: with 99 % confidence the true one is not above it."""

    valid: bool
    reasons: tuple[str, ...] = ()
    percentile: float | None = None
    percentile_ms: float | None = None


def judge_run(
    name: ScenarioName, latencies_ms: Floats, *, asked_s: float, ran_s: float, deadline_ms: float | None
) -> Judgement:
    """Judge the latencies of a run's queries; for offline one for each sample. `asked_s` is the duration asked for."""
    reasons = []
    if ran_s < asked_s * 0.99:
        reasons.append(f"ran for {ran_s:.3g} s of {asked_s:.3g} s: give more --count or fewer --seconds")
    if name == "offline":
        if latencies_ms.size < OFFLINE_SAMPLES:
            reasons.append(f"{latencies_ms.size} samples of {OFFLINE_SAMPLES}: measure for longer")
        return Judgement(valid=not reasons, reasons=tuple(reasons))
    target = TARGETS[name]
    if name == "server":
        assert deadline_ms is not None
        reasons += _server(latencies_ms, target, deadline_ms)
        over = np.quantile(latencies_ms, target) if latencies_ms.size else math.nan
        found = float(over) if math.isfinite(over) else None
        return Judgement(valid=not reasons, reasons=tuple(reasons), percentile=target, percentile_ms=found)
    estimate = early_stopping_estimate(latencies_ms, target)
    if estimate is None:
        needed = least_queries(1, target)
        reasons.append(f"{latencies_ms.size} queries, {needed} are needed for p{target * 100:g}: measure for longer")
    return Judgement(valid=not reasons, reasons=tuple(reasons), percentile=target, percentile_ms=estimate)


def _server(latencies_ms: Floats, target: float, deadline_ms: float) -> list[str]:
    late = int((latencies_ms > deadline_ms).sum())
    needed = least_queries(late, target) if latencies_ms.size else 1
    if latencies_ms.size >= needed:
        return []
    share = late / max(latencies_ms.size, 1)
    if share > 1.0 - target:
        return [f"{share:.2%} of {latencies_ms.size} queries over {deadline_ms:g} ms, 1 % may be: lower --rate"]
    return [f"{late} of {latencies_ms.size} queries over {deadline_ms:g} ms, too few to tell: measure for longer"]


def early_stopping_estimate(latencies_ms: Floats, target: float) -> float | None:
    """Return the bound of a percentile: the smallest latency that so many queries show; None when they are too few."""
    count = int(latencies_ms.size)
    if count < least_queries(1, target):
        return None
    low, high = 1, max(2, math.ceil(count * (1.0 - target)) + 1)  # the bound is never below the plain percentile
    while low + 1 < high:
        middle = (low + high) // 2
        if _shown(middle, count, target):
            low = middle
        else:
            high = middle
    return float(np.partition(latencies_ms, count - low)[count - low])


def least_queries(late: int, target: float) -> int:
    """Return how many queries are needed when `late` of them are over the latency."""
    low, high = late, max(64, 2 * late)
    while not _shown(late, high, target):
        low, high = high, high * 2
    while low + 1 < high:
        middle = (low + high) // 2
        if _shown(late, middle, target):
            high = middle
        else:
            low = middle
    return high


def _shown(late: int, count: int, target: float) -> bool:
    """Tell whether P(X <= late) < 1 - CONFIDENCE for X binomial(count, 1 - target)."""
    if late >= count:
        return False
    k = np.arange(late + 1, dtype=np.float64)
    steps = np.log((count - k[:-1]) / (k[:-1] + 1.0)) + math.log((1.0 - target) / target)
    logs = count * math.log(target) + np.concatenate(([0.0], np.cumsum(steps)))
    most = float(logs.max())
    return most + math.log(float(np.exp(logs - most).sum())) < math.log(1.0 - CONFIDENCE)
