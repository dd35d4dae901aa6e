"""What one candidate has over another: loss and latency, each beyond the interval of the paired comparison. Pure.

Two candidates that answered the same samples, and took turns on the same machine, are compared sample by sample and
round by round: what both have in common cancels, and what is left says whether a difference is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_bench.stats import Interval, binomial_cdf
from edge_compression.evaluation.paired_statistics import flips, of_draws, resampled
from edge_compression.evaluation.pareto import LATENCY_STEP

Floats = NDArray[np.float64]

LOSS_STEP, LOSS_SHARE = 0.05, 0.1
"""What is lost less and is no reason for another rung however sure it is: points of a metric, and a share of what may
be lost where losses are in another unit."""


LATENCY_LEAST_MS = 0.01
"""A difference of latencies that is no reason for another rung: what a call through the engine's door varies by."""


@dataclass(frozen=True, kw_only=True)
class SampledLoss:
    """What a candidate loses of one output on some samples: `loss` in the limit's unit and either each sample's share
    of it, `means`, whose mean it is, or the loss of bootstrap resamples, `draws`, the same ones for every candidate."""

    loss: float
    step: float
    means: Floats | None = None
    draws: Floats | None = None

    def more_than(self, other: SampledLoss) -> Interval:
        """Return the paired 95 % interval of what this one loses more than `other`, in the limit's unit."""
        seen = self.loss - other.loss
        if self.means is not None and other.means is not None:
            gap = self.means - other.means
            quantile = flips(gap / 100.0) or resampled(gap / 100.0)
            return Interval(low=100.0 * quantile(0.025), high=100.0 * quantile(0.975))
        if self.draws is None or other.draws is None:
            return Interval(low=seen, high=seen)
        quantile = of_draws(self.draws - other.draws, seen)
        return Interval(low=quantile(0.025), high=quantile(0.975))


def loses_less(a: Sequence[SampledLoss], b: Sequence[SampledLoss]) -> bool:
    """Return whether `a` loses less of an output than `b` does, by a step and beyond the paired interval."""
    return any(
        theirs.loss - own.loss > own.step and theirs.more_than(own).low > 0.0 for own, theirs in zip(a, b, strict=True)
    )


def faster(a: Sequence[float], b: Sequence[float]) -> bool:
    """Return whether `a` is faster than `b`, by a step and beyond the paired interval of their rounds' medians, in
    milliseconds."""
    own, other = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    step = float(np.median(other / own)) > LATENCY_STEP and float(np.median(other - own)) > LATENCY_LEAST_MS
    return step and speed_ratio(a, b).low > 1.0


def speed_ratio(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Return the paired 95 % interval of how many times as long as `a` `b` takes, from the medians of rounds in which
    both took a turn. It is the sign test's, which asks nothing of how machines disturb: of twelve rounds two may be far
    off at either end. With fewer than six it is as wide as what was seen."""
    ratios = np.sort(np.asarray(b, dtype=np.float64) / np.asarray(a, dtype=np.float64))
    outside = 0
    while 2.0 * binomial_cdf(outside, ratios.size, 0.5) <= 0.05:
        outside += 1
    outside = max(0, outside - 1)
    return Interval(low=float(ratios[outside]), high=float(ratios[-1 - outside]))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What pairs of candidates are compared by: each one's `losses` on samples for choosing, those on all samples of
    whom answered them, and the medians of its rounds."""

    choosing: Mapping[str, Sequence[SampledLoss]]
    everywhere: Mapping[str, Sequence[SampledLoss]]
    rounds: Mapping[str, Sequence[float]]

    def loses_less(self, a: str, b: str) -> bool:
        """Return whether `a` loses less than `b`, on as many samples as both have answered."""
        both = self.everywhere if a in self.everywhere and b in self.everywhere else self.choosing
        return loses_less(both[a], both[b])

    def faster(self, a: str, b: str) -> bool:
        """Return whether `a` is faster than `b`."""
        return faster(self.rounds[a], self.rounds[b])
