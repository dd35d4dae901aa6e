"""Evidence against "the mean is at most what is allowed", which may be looked at after every observation.

An e-process bets against that claim: it starts at 1, is expected not to grow while the claim holds, whatever the
distribution, and passes 1/alpha at any time with a probability of at most alpha (Ville's inequality). For bounded
observations: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2024, section 4; a
mixture over fixed bets, so that the order of observations does not matter. For outcomes of 0 and 1 it is the mixture of
likelihood ratios against larger rates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from edge_contracts.codec import StrictRecord

BETS = (0.95, 0.8, 0.65, 0.5, 0.35, 0.25, 0.125, 0.06, 0.03)
"""Shares of the largest bet that cannot lose everything, equally weighted: large ones see gross harm after a few
observations, small ones slight harm after many."""


class Bounds(StrictRecord, frozen=True, kw_only=True):
    """What an observation can be at the least and at the most; what lies beyond counts as the bound."""

    low: float = 0.0
    high: float = 1.0

    def clip(self, value: float) -> float:
        """Return the value, or the bound that it lies beyond."""
        return min(max(value, self.low), self.high)


OUTCOME = Bounds()
"""Of a device that failed (1) or did not (0)."""


class EProcess:
    """The evidence so far that the mean of the observations is above `allowed`."""

    def __init__(self, allowed: float, bounds: Bounds = OUTCOME) -> None:
        """Start without evidence. Raises ValueError if `allowed` is not in [low, high) of the bounds."""
        if not bounds.low <= allowed < bounds.high:
            raise ValueError(f"allowed {allowed:g} is not in [{bounds.low:g}, {bounds.high:g})")
        self.count = 0
        self.total = 0.0
        self._allowed = allowed
        self._bounds = bounds
        # A bet over 1 / (allowed - low) could lose more than everything at the lowest observation. Where next to
        # nothing is allowed no bet can lose much and it would grow without bound: a thousand ranges are enough.
        self._most = 1.0 / max(allowed - bounds.low, (bounds.high - bounds.low) * 1e-3)
        self._sums = [0.0] * len(BETS)

    def add(self, value: float) -> None:
        """Take one observation in."""
        clipped = self._bounds.clip(value)
        gain = (clipped - self._allowed) * self._most
        self.count += 1
        self.total += clipped
        for index, bet in enumerate(BETS):
            self._sums[index] += math.log1p(bet * gain)

    @property
    def mean(self) -> float | None:
        """The mean of the observations within their bounds; None without any."""
        return self.total / self.count if self.count else None

    @property
    def log_e(self) -> float:
        """The natural logarithm of the evidence; 0.0 at the start."""
        return _log_mean_exp(self._sums)


def log_e_value(values: Iterable[float], allowed: float, bounds: Bounds = OUTCOME) -> float:
    """Return the natural logarithm of the evidence that the mean of `values` is above `allowed`."""
    process = EProcess(allowed, bounds)
    for value in values:
        process.add(value)
    return process.log_e


def lower_bound(values: Iterable[float], alpha: float, bounds: Bounds = OUTCOME) -> float:
    """Return the lower end of the mean's one-sided confidence sequence at level `alpha`: every mean below it is ruled
    out by the observations, whenever one looks. `bounds.low` if none is."""
    seen, limit = list(values), math.log(1.0 / alpha)
    low, high = bounds.low, bounds.high
    if log_e_value(seen, low, bounds) < limit:
        return low
    for _ in range(40):
        middle = (low + high) / 2.0
        if log_e_value(seen, middle, bounds) >= limit:
            low = middle
        else:
            high = middle
    return low


def upper_bound(values: Iterable[float], alpha: float, bounds: Bounds = OUTCOME) -> float:
    """Return the upper end of the mean's one-sided confidence sequence at level `alpha`; `bounds.high` if no mean is
    ruled out."""
    mirrored = Bounds(low=-bounds.high, high=-bounds.low)
    return -lower_bound([-value for value in values], alpha, mirrored)


def _log_mean_exp(logs: list[float]) -> float:
    peak = max(logs)
    return peak + math.log(math.fsum(math.exp(one - peak) for one in logs) / len(logs))
