"""Has what a slot sees changed? A window's counts against the reference that the release ships, judged by sample size.

A window of fifty answers differs from its reference by chance alone: a fixed bound ("PSI over 0.1") raises an alarm in
nearly every such window. Each distance here comes with the bound that chance keeps below with probability 1 - alpha.
Counting into bins is in `edge_agent.inference.histograms`; what an alarm leads to is the operator's decision.

Sources: population stability index and its distribution, B. Yurdakul and J. Naranjo, "Statistical properties of the
population stability index", Journal of Risk Model Validation 14(4), 2020; Jensen-Shannon divergence, J. Lin, IEEE
Trans. Inf. Theory 37(1), 1991; two-sample Kolmogorov-Smirnov, N. Smirnov, 1948; sequential change of a mean,
E. S. Page, Biometrika 41, 1954 (the test named Page-Hinkley); quantiles
of chi-squared, Wilson and Hilferty, PNAS 17, 1931.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import ClassVar

from msgspec import Struct

from edge_agent.histogram_names import parted

ALPHA = 0.01
"""Share of windows that may raise an alarm where nothing changed, over all histograms of a slot together."""

SMALLEST_WINDOW = 30
"""Samples below which a window says nothing about a distribution."""

_HALF = 0.5
"""Added to each bin's count, so that an empty bin has a logarithm (Jeffreys' prior)."""


class Drift(Struct, frozen=True, kw_only=True):
    """One histogram's distance from its reference: `value` against the `bound` that chance keeps below.

    `psi` and `jsd` are in nats, `ks` is the largest difference of the two distribution functions at a bin's edge.
    `value` and `bound` are of the statistic that decides, named by `by`.
    """

    name: str
    samples: int
    psi: float
    jsd: float
    ks: float
    by: str
    value: float
    bound: float

    @property
    def alarm(self) -> bool:
        return self.value > self.bound


def judge(
    references: Mapping[str, Sequence[int]], window: Mapping[str, Sequence[int]], *, alpha: float = ALPHA
) -> list[Drift]:
    """Judge every histogram that both sides have, with equal numbers of bins and enough samples in the window; one of
    a tag against the reference of its base name.

    `alpha` is divided among the histograms judged (Bonferroni), so that it holds for all of them together, those of
    tags included.
    """
    pairs = {name: (references.get(parted(name)[0], ()), counts) for name, counts in window.items()}
    judged = {
        name: (reference, counts)
        for name, (reference, counts) in pairs.items()
        if len(reference) == len(counts) >= 2 and sum(counts) >= SMALLEST_WINDOW
    }
    return [judge_one(name, *both, alpha=alpha / len(judged)) for name, both in judged.items()]


def judge_one(name: str, reference: Sequence[int], window: Sequence[int], *, alpha: float) -> Drift:
    """Judge one histogram: half of `alpha` for its shape (PSI), half for a shift (KS); what exceeds most decides."""
    n, m = sum(reference), sum(window)
    bins = sum(1 for a, b in zip(reference, window, strict=True) if a or b)
    observed_psi, observed_ks = psi(reference, window), ks(reference, window)
    psi_limit = psi_bound(n, m, max(bins, 2), alpha / 2)
    ks_limit = ks_bound(n, m, alpha / 2)
    by_psi = observed_psi / psi_limit >= observed_ks / ks_limit
    return Drift(
        name=name,
        samples=m,
        psi=observed_psi,
        jsd=jsd(reference, window),
        ks=observed_ks,
        by="psi" if by_psi else "ks",
        value=observed_psi if by_psi else observed_ks,
        bound=psi_limit if by_psi else ks_limit,
    )


def psi(reference: Sequence[int], window: Sequence[int]) -> float:
    """Return the population stability index of two histograms over the same bins, in nats."""
    p, q = _shares(reference), _shares(window)
    return sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))


def jsd(reference: Sequence[int], window: Sequence[int]) -> float:
    """Return the Jensen-Shannon divergence of two histograms over the same bins, in nats: 0 to ln 2."""
    p, q = _shares(reference), _shares(window)
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2


def ks(reference: Sequence[int], window: Sequence[int]) -> float:
    """Return the largest difference of the two cumulated shares."""
    n, m = sum(reference), sum(window)
    pairs = zip(accumulate(reference), accumulate(window), strict=True)
    return max((abs(a / n - b / m) for a, b in pairs), default=0.0) if n and m else 0.0


def psi_bound(n: int, m: int, bins: int, alpha: float) -> float:
    """Return the PSI that two samples of one distribution, of sizes `n` and `m`, exceed with probability `alpha`.

    Asymptotically (1/n + 1/m) times chi-squared with `bins` - 1 degrees of freedom. The last factor is for small
    windows, whose logarithms of nearly empty bins spread wider than that.
    """
    spread = 1 / n + 1 / m
    return spread * chi_squared_quantile(1 - alpha, bins - 1) * (1 + bins * spread)


def ks_bound(n: int, m: int, alpha: float) -> float:
    """Return the difference that two samples of one distribution exceed with probability at most `alpha`."""
    return math.sqrt(-math.log(alpha / 2) / 2 * (1 / n + 1 / m))


def chi_squared_quantile(p: float, degrees: int) -> float:
    """Return the quantile of chi-squared (Wilson-Hilferty; within 2 % for p over 0.9)."""
    from statistics import NormalDist  # brings fractions and decimals, which only who judges needs

    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + NormalDist().inv_cdf(p) * math.sqrt(spread)) ** 3


class PageHinkley(Struct, frozen=True, kw_only=True):
    """A mean against its own past: a slow change that no single window shows adds up here.

    `mean` is that of the `windows` before; `up` and `down` are the sums of deviations from it, in standard errors, less
    `SLACK` a window: half of the smallest shift worth knowing. Over `LIMIT` the change is certain enough.
    """

    windows: int = 0
    mean: float = 0.0
    up: float = 0.0
    down: float = 0.0

    SLACK: ClassVar[float] = 0.5
    LIMIT: ClassVar[float] = 8.0
    LEARNING: ClassVar[int] = 10
    """Windows that only make the mean: measured against less, a steady slot would seem to move."""

    def add(self, value: float, error: float) -> PageHinkley:
        """Return the sums after a window of mean `value` and standard error `error`; one without either changes
        nothing."""
        if not (math.isfinite(value) and error > 0.0):
            return self
        count = self.windows + 1
        mean = self.mean + (value - self.mean) / count
        if self.windows < self.LEARNING:
            return PageHinkley(windows=count, mean=mean)
        deviation = (value - self.mean) / (error * math.sqrt(1 + 1 / self.windows))
        up, down = self.up + deviation - self.SLACK, self.down - deviation - self.SLACK
        return PageHinkley(windows=count, mean=mean, up=max(0.0, up), down=max(0.0, down))

    @property
    def alarm(self) -> bool:
        return max(self.up, self.down) > self.LIMIT


def mean_bin(counts: Sequence[int]) -> tuple[float, float]:
    """Return the mean number of the bin a sample fell into, and its standard error; NaN and 0 without two samples."""
    total = sum(counts)
    if total < 2:
        return math.nan, 0.0
    mean = sum(index * count for index, count in enumerate(counts)) / total
    variance = sum(count * (index - mean) ** 2 for index, count in enumerate(counts)) / (total - 1)
    return mean, math.sqrt(variance / total)


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) + _HALF * len(counts)
    return [(count + _HALF) / total for count in counts]


def _relative_entropy(p: Sequence[float], q: Sequence[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
