"""The statistics of measurements and comparisons, pure: arrays in, numbers out, seeds as arguments.

What is measured is in `edge_bench.measure`; what a result means for a variant is in
`edge_compression.evaluation.pareto`.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edge_contracts.codec import StrictRecord

Floats = NDArray[np.float64]

UNSTABLE_CV = 0.05
"""Coefficient of variation between round medians above which a latency is not to be compared with another."""

RESAMPLES = 2000
"""Bootstrap resamples: the ends of a 95 % interval rest on the 50 most extreme of them."""


class Interval(StrictRecord, frozen=True, kw_only=True):
    """A two-sided confidence interval."""

    low: float
    high: float


class LatencySummary(StrictRecord, frozen=True, kw_only=True):
    """Latencies in milliseconds. `cv` is between the medians of the rounds, so slow drift of the machine shows and a
    few late interrupts do not; `per_second` is what one caller gets, one request after another."""

    count: int
    p50: float
    p50_interval: Interval
    p90: float
    p99: float
    mean: float
    cv: float
    stable: bool
    per_second: float


def summarize(rounds: list[Floats], *, seed: int = 0) -> LatencySummary:
    """Summarize latencies in milliseconds, one array a round. Raises ValueError when there is no sample."""
    samples = np.concatenate(rounds) if rounds else np.empty(0)
    if samples.size == 0:
        raise ValueError("no latency samples")
    p50, p90, p99 = (float(value) for value in np.percentile(samples, (50, 90, 99)))
    mean = float(samples.mean())
    cv = coefficient_of_variation(np.array([np.median(values) for values in rounds if values.size]))
    return LatencySummary(
        count=int(samples.size),
        p50=p50,
        p50_interval=median_interval(samples, seed=seed),
        p90=p90,
        p99=p99,
        mean=mean,
        cv=cv,
        stable=cv <= UNSTABLE_CV,
        per_second=1000.0 / mean if mean > 0 else math.inf,
    )


def coefficient_of_variation(values: Floats) -> float:
    """Return the sample standard deviation over the mean; 0.0 for fewer than two values."""
    if values.size < 2 or values.mean() == 0:
        return 0.0
    return float(values.std(ddof=1) / values.mean())


def median_interval(samples: Floats, *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Return the percentile-bootstrap interval of the median (Efron 1979).

    A resample is the sorted samples at n uniform places, so its median is the samples at the median place, and that is
    Beta-distributed: drawing places instead of resamples is the same bootstrap without the resamples.
    """
    ordered = np.sort(samples)
    count = ordered.size
    middle = (count + 1) // 2
    places = np.random.default_rng(seed).beta(middle, count + 1 - middle, RESAMPLES)
    medians = ordered[np.minimum((places * count).astype(np.intp), count - 1)]
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(medians, (tail, 1.0 - tail))
    return Interval(low=float(low), high=float(high))


def mcnemar_exact(lost: int, won: int) -> float:
    """Return the two-sided p-value of McNemar's exact test: `lost` samples only the first got right, `won` only the
    second. Samples on which both agree say nothing."""
    discordant = lost + won
    if discordant == 0:
        return 1.0
    return min(1.0, 2.0 * binomial_cdf(min(lost, won), discordant, 0.5))


def paired_drop_interval(per_sample: Floats, *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Return the bootstrap interval of the mean of per-sample differences (original minus candidate), samples paired.

    Resamples by the counts of distinct values, which is the same distribution and takes no n x resamples table.
    """
    values, counts = np.unique(per_sample, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(per_sample.size, counts / per_sample.size, size=RESAMPLES)
    means = draws @ values / per_sample.size
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(means, (tail, 1.0 - tail))
    return Interval(low=float(low), high=float(high))


def wilson_upper(events: int, trials: int, *, confidence: float = 0.99) -> float:
    """Return the one-sided upper bound of a proportion (Wilson 1927). 1.0 when nothing was tried."""
    if trials == 0:
        return 1.0
    z = normal_quantile(confidence)
    share = events / trials
    center = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return min(1.0, (center + spread) / (1 + z * z / trials))


def binomial_cdf(count: int, trials: int, share: float) -> float:
    """Return P(X <= count) for X binomial, in floating point from exact logarithms of the coefficients."""
    if count >= trials or share <= 0.0:
        return 1.0
    if share >= 1.0:
        return 0.0
    log_p, log_q = math.log(share), math.log1p(-share)
    whole = math.lgamma(trials + 1)
    terms = (
        whole - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * log_p + (trials - k) * log_q
        for k in range(count + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def binomial_quantile(confidence: float, trials: int, share: float) -> int:
    """Return the smallest count with P(X <= count) >= confidence for X binomial."""
    for count in range(trials + 1):
        if binomial_cdf(count, trials, share) >= confidence:
            return count
    return trials


def normal_quantile(confidence: float) -> float:
    """Return the quantile of the standard normal distribution."""
    return NormalDist().inv_cdf(confidence)
