"""Ranges of activations from calibration samples, streamed: memory is one sample's activations plus fixed histograms.

Here: collecting extremes and histograms, and choosing a range from them. Which tensors are collected is the quantizing
pass's business. Two rounds over the samples are made for histograms, so that bins are exact from the start and nothing
is ever kept or re-binned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_compression.pass_api import PassError

Calibrator = Literal["minmax", "average", "percentile", "entropy", "mse"]
HISTOGRAMS = frozenset(("percentile", "entropy", "mse"))
"""The calibrators that need histograms."""
Tensors = Mapping[str, NDArray[Any]]
Counts = NDArray[np.int64]

BINS = 2048
"""Bins over [-m, m], m the largest magnitude seen: 1024 a side, eight to each of int8's 128 levels."""

LEVELS = 128
"""Magnitudes an 8-bit activation can take on one side of zero."""

CLIPPING_STEP = 8
"""Bins between two clipping points that are compared: finer than one level, an eighth of the work."""

AVERAGING = 0.05
"""Weight of each sample's extremes in the moving average: the last twenty or so decide."""


@dataclass(frozen=True, kw_only=True)
class CalibrationRange:
    """The values one tensor took: extremes over all samples, their moving average over samples (Jacob et al. 2018,
    arXiv:1712.05877, section 3.1) and, when asked for, counts of `BINS` equal bins over [-m, m]."""

    low: float
    high: float
    average: tuple[float, float]
    counts: Counts | None = None

    @property
    def magnitude(self) -> float:
        return max(abs(self.low), abs(self.high))


def collect(samples: Callable[[], Iterator[Tensors]], *, histograms: bool) -> dict[str, CalibrationRange]:
    """Return the range of every tensor that `samples` yields. `samples` is called once, twice with histograms.

    Raises PassError naming the tensor when a value is not finite, or when there is no sample.
    """
    ranges: dict[str, CalibrationRange] = {}
    for tensors in samples():
        for name, values in tensors.items():
            if values.size:
                ranges[name] = _widened(ranges.get(name), name, values)
    if not ranges:
        raise PassError("no calibration sample", subject="calib_x")
    if not histograms:
        return ranges
    counts = {name: np.zeros(BINS, dtype=np.int64) for name in ranges}
    for tensors in samples():
        for name, values in tensors.items():
            counts[name] += _histogram(values, ranges[name].magnitude or 1.0)
    return {name: replace(found, counts=counts[name]) for name, found in ranges.items()}


def _histogram(values: NDArray[Any], bound: float) -> Counts:
    """Return the counts of `BINS` equal bins over [-bound, bound], which holds all values."""
    places = ((values.ravel().astype(np.float64) + bound) * (BINS / (2 * bound))).astype(np.intp)
    return np.bincount(np.minimum(places, BINS - 1), minlength=BINS)


def _widened(known: CalibrationRange | None, name: str, values: NDArray[Any]) -> CalibrationRange:
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise PassError("a calibration sample makes it infinite or not a number", subject=f"tensor {name}")
    if known is None:
        return CalibrationRange(low=low, high=high, average=(low, high))
    moved = (
        known.average[0] + AVERAGING * (low - known.average[0]),
        known.average[1] + AVERAGING * (high - known.average[1]),
    )
    return CalibrationRange(low=min(low, known.low), high=max(high, known.high), average=moved)


def choose(found: CalibrationRange, calibrator: Calibrator, *, percentile: float) -> tuple[float, float]:
    """Return the (low, high) to quantize a tensor with; `percentile` is the share kept, in percent, both tails cut."""
    if calibrator == "average":
        return found.average
    if calibrator == "minmax" or found.counts is None or found.magnitude == 0.0:
        return found.low, found.high
    if calibrator == "percentile":
        return _percentile(found, found.counts, percentile)
    if calibrator == "mse":
        return least_squares_range(found, found.counts)
    threshold = entropy_threshold(_folded(found.counts)) / (BINS // 2) * found.magnitude
    return max(found.low, -threshold), min(found.high, threshold)


def least_squares_range(found: CalibrationRange, counts: Counts, *, levels: int = 255) -> tuple[float, float]:
    """Return the range, clipped alike on both sides, whose `levels` steps with one at zero leave the smallest squared
    error of rounding and clipping together."""
    centers = (np.arange(BINS) + 0.5) / BINS * 2 * found.magnitude - found.magnitude
    occupied = counts > 0
    centers, weights = centers[occupied], counts[occupied]
    best, least = (found.low, found.high), np.inf
    for kept in range(LEVELS, BINS // 2 + 1, CLIPPING_STEP):
        threshold = kept / (BINS // 2) * found.magnitude
        low, high = min(max(found.low, -threshold), 0.0), max(min(found.high, threshold), 0.0)
        step = (high - low) / levels
        snapped = np.clip(np.rint(centers / step), np.rint(low / step), np.rint(high / step)) * step
        error = float((weights * (snapped - centers) ** 2).sum())
        if error <= least:
            best, least = (low, high), error
    return best


def _percentile(found: CalibrationRange, counts: Counts, percentile: float) -> tuple[float, float]:
    edges = np.linspace(-found.magnitude, found.magnitude, BINS + 1)
    cumulative = np.cumsum(counts) / counts.sum()
    tail = (1.0 - percentile / 100.0) / 2
    low = edges[int(np.searchsorted(cumulative, tail, side="right"))]
    high = edges[min(BINS, int(np.searchsorted(cumulative, 1.0 - tail, side="left")) + 1)]
    return max(found.low, float(low)), min(found.high, float(high))


def _folded(counts: Counts) -> Counts:
    half = BINS // 2
    return counts[half:] + counts[:half][::-1]


def entropy_threshold(counts: Counts, *, levels: int = LEVELS, step: int = CLIPPING_STEP) -> int:
    """Return how many bins of a histogram of magnitudes to keep so that the distribution seen through `levels` steps
    loses least (Migacz 2017, "8-bit inference with TensorRT": smallest Kullback-Leibler divergence).

    The bin at zero counts as much as its neighbor: the zeros a ReLU makes are exact at any scale, and their number
    would hide what clipping costs.
    """
    counts = counts.copy()
    counts[0] = counts[1]
    best, best_divergence = counts.size, np.inf
    for kept in range(levels, counts.size + 1, step):
        divergence = _divergence(counts, kept, levels)
        if divergence < best_divergence:
            best, best_divergence = kept, divergence
    return best


def _divergence(counts: Counts, kept: int, levels: int) -> float:
    inside = counts[:kept].astype(np.float64)
    reference = inside.copy()
    reference[-1] += counts[kept:].sum()
    level = np.arange(kept) * levels // kept
    occupied = inside > 0
    sums = np.bincount(level, weights=inside, minlength=levels)
    cells = np.bincount(level, weights=occupied, minlength=levels)
    spread = np.where(occupied, sums[level] / np.maximum(cells[level], 1), 0.0)
    if spread.sum() == 0:
        return float("inf")
    p, q = reference / reference.sum(), spread / spread.sum()
    seen = p > 0
    # A value clipped into an empty last bin has no counterpart; a floor makes that costly instead of infinite.
    return float(np.sum(p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))))
