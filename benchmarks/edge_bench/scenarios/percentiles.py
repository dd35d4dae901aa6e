"""Percentiles of latencies with their bootstrap intervals, all of one run. Pure.

Queries beside each other are alike, and blocks of them differ: both are resampled, blocks with replacement and the
queries in them with exponential weights (Rubin's Bayesian bootstrap), so an interval is as wide as the machine makes
blocks differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_bench.stats import Interval
from edge_contracts.codec import StrictRecord

Floats = NDArray[np.float64]

SHARES = (0.5, 0.9, 0.99, 0.999)
CONFIDENCE = 0.95
MOST_WORK = 40_000_000
"""Weights drawn at most for one interval: resamples are fewer where there are more latencies."""

RESAMPLES = (60, 1000)


class Percentile(StrictRecord, frozen=True, kw_only=True):
    """One percentile in milliseconds; `interval` holds the true one in 95 % of runs on such a machine."""

    share: float
    ms: float
    interval: Interval


def percentiles(blocks: Sequence[Floats], *, shares: Sequence[float] = SHARES, seed: int = 0) -> tuple[Percentile, ...]:
    """Return percentiles of latencies in milliseconds, one array a block. One that no latency lies beyond is left out:
    p99.9 needs a thousand."""
    found = [block for block in blocks if block.size]
    whole = np.concatenate(found) if found else np.empty(0)
    told = [share for share in shares if whole.size * (1.0 - share) >= 1.0 - 1e-9]
    if not told:
        return ()
    order = np.argsort(whole, kind="stable")
    ordered = whole[order]
    owner = np.repeat(np.arange(len(found)), [block.size for block in found])[order]
    draws = np.random.default_rng(seed)
    low, high = RESAMPLES
    count = min(high, max(low, MOST_WORK // whole.size))
    resampled = np.array([_weighted(ordered, _weights(owner, len(found), draws), told) for _ in range(count)])
    tail = (1.0 - CONFIDENCE) / 2
    ends = np.quantile(resampled, (tail, 1.0 - tail), axis=0)
    values = np.quantile(ordered, told)
    return tuple(
        Percentile(share=share, ms=float(value), interval=Interval(low=float(min(a, value)), high=float(max(b, value))))
        for share, value, a, b in zip(told, values, *ends, strict=True)
    )


def _weights(owner: NDArray[np.intp], blocks: int, draws: np.random.Generator) -> Floats:
    taken = draws.multinomial(blocks, np.full(blocks, 1.0 / blocks)).astype(np.float64)
    return np.asarray(draws.standard_exponential(owner.size) * taken[owner])


def _weighted(ordered: Floats, weights: Floats, shares: Sequence[float]) -> list[float]:
    reached = np.cumsum(weights)
    places = np.searchsorted(reached, np.asarray(shares) * reached[-1])
    return [float(ordered[min(place, ordered.size - 1)]) for place in places]
