"""Paired comparisons: bounds on what a candidate loses against the original on the same samples.

Pure statistics on per-sample differences; what they mean for a candidate is decided in `evaluate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_bench.stats import RESAMPLES, Interval, normal_quantile

Floats = NDArray[np.float64]
Quantile = Callable[[float], float]
"""The quantile function of a drop, 0 to 1 in, the metric's unit out."""


def flips(gained: Floats) -> Quantile | None:
    """Return the quantile function of the mean of differences that are -1, 0 or 1 each; None when others are among
    them.

    Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions" (half a sample is
    added to each of the four cells): unlike the bootstrap it does not promise that nothing can be lost where nothing
    was seen to be lost.
    """
    if not np.isin(gained, (-1.0, 0.0, 1.0)).all():
        return None
    count = gained.size + 2.0
    lost, won = float((gained > 0).sum()) + 0.5, float((gained < 0).sum()) + 0.5
    mean = (lost - won) / count
    spread = math.sqrt(lost + won - (lost - won) ** 2 / count) / count
    return lambda share: float(np.clip(mean + normal_quantile(share) * spread, -1.0, 1.0))


def resampled(gained: Floats, *, seed: int = 0) -> Quantile:
    """Return the bootstrap's quantile function of the mean of per-sample differences."""
    values, counts = np.unique(gained, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(gained.size, counts / gained.size, size=RESAMPLES)
    means = draws @ values / gained.size
    return lambda share: float(np.quantile(means, share))


def two_sided(quantile: Quantile, confidence: float = 0.95) -> Interval:
    """Return the interval that leaves the same share out at both ends, in points (hundredths)."""
    tail = (1.0 - confidence) / 2
    return Interval(low=100.0 * quantile(tail), high=100.0 * quantile(1.0 - tail))


def of_draws(draws: Floats, seen: float) -> Quantile:
    """Return the quantile function of bootstrap draws; `seen` where none of them is a number: resamples without a
    sample of each kind have no area under a curve."""
    known = draws[np.isfinite(draws)]
    if known.size == 0:
        return lambda _: seen
    return lambda share: float(np.quantile(known, share))
