"""How long to wait before trying again: full jitter, and the round-trip timer of requests. Delays are returned."""

from __future__ import annotations

from dataclasses import dataclass


def full_jitter(attempt: int, chance: float, *, base_s: float, cap_s: float) -> float:
    """Return `chance` (uniform in [0, 1)) of the exponential step `base_s * 2**attempt`, at most `cap_s`, in seconds.

    Full jitter spreads a fleet that lost the same broker at the same moment (Brooker, "Exponential Backoff and
    Jitter", AWS Architecture Blog, 2015). `attempt` counts from 0.
    """
    return chance * min(cap_s, base_s * 2.0 ** min(attempt, 32))


def doubling(attempt: int, *, base_s: float, cap_s: float) -> float:
    """Return `base_s * 2**attempt`, at most `cap_s`, in seconds: for one process that restarts another."""
    return min(cap_s, base_s * 2.0 ** min(attempt, 32))


@dataclass(frozen=True, kw_only=True)
class RoundTrip:
    """Smoothed round-trip time and its variation, and the time to wait for an answer (RFC 6298, sections 2 and 5)."""

    smoothed_s: float | None = None
    variation_s: float = 0.0
    timeout_s: float = 2.0
    floor_s: float = 0.25
    cap_s: float = 30.0

    def observed(self, sample_s: float) -> RoundTrip:
        """Return the estimate after an answer that took `sample_s` and was asked for once only."""
        if self.smoothed_s is None:
            smoothed, variation = sample_s, sample_s / 2
        else:
            variation = 0.75 * self.variation_s + 0.25 * abs(self.smoothed_s - sample_s)
            smoothed = 0.875 * self.smoothed_s + 0.125 * sample_s
        return self._with(smoothed, variation, smoothed + 4 * variation)

    def missed(self) -> RoundTrip:
        """Return the estimate after no answer came in time: wait twice as long."""
        return self._with(self.smoothed_s, self.variation_s, 2 * self.timeout_s)

    def _with(self, smoothed: float | None, variation: float, timeout: float) -> RoundTrip:
        bounded = min(self.cap_s, max(self.floor_s, timeout))
        return RoundTrip(
            smoothed_s=smoothed, variation_s=variation, timeout_s=bounded, floor_s=self.floor_s, cap_s=self.cap_s
        )
