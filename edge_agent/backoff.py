"""How long to wait before trying again, and how much to ask for at once: full jitter, the round-trip timer of requests,
the window of requests in flight. Delays are returned, never slept."""

from __future__ import annotations

from msgspec import Struct


def full_jitter(attempt: int, chance: float, *, base_s: float, cap_s: float) -> float:
    """Return `chance` (uniform in [0, 1)) of the exponential step `base_s * 2**attempt`, at most `cap_s`, in seconds.

    Full jitter spreads a fleet that lost the same broker at the same moment (Brooker, "Exponential Backoff and
    Jitter", AWS Architecture Blog, 2015). `attempt` counts from 0.
    """
    return chance * min(cap_s, base_s * 2.0 ** min(attempt, 32))


def doubling(attempt: int, *, base_s: float, cap_s: float) -> float:
    """Return `base_s * 2**attempt`, at most `cap_s`, in seconds: for one process that restarts another."""
    return min(cap_s, base_s * 2.0 ** min(attempt, 32))


class RoundTrip(Struct, frozen=True, kw_only=True):
    """Smoothed round-trip time and its variation, and the time to wait for an answer (RFC 6298, sections 2 and 5).

    Over one TCP connection an answer is slow far more often than it is lost, and asking again for what is only slow
    costs a slow link everything; so the first wait is long and no wait is short. A lost connection needs no timer.
    """

    smoothed_s: float | None = None
    variation_s: float = 0.0
    timeout_s: float = 10.0
    floor_s: float = 1.0
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


SHORT_S, LONG_S = 1.0, 4.0
"""A round trip below the first leaves room for more in flight; above the second the link only queues what we ask."""


class InFlight(Struct, frozen=True, kw_only=True):
    """How many requests may be in flight: one more after each quick answer, one less after each slow one, half after
    none. Governed by delay rather than loss, as in LEDBAT (RFC 6817), because TCP hides loss and a full queue makes
    every answer late."""

    limit: int = 2
    most: int = 64

    def observed(self, sample_s: float) -> InFlight:
        """Return the window after an answer that took `sample_s`."""
        step = 1 if sample_s < SHORT_S else -1 if sample_s > LONG_S else 0
        return InFlight(limit=min(self.most, max(1, self.limit + step)), most=self.most)

    def missed(self) -> InFlight:
        """Return the window after an answer that did not come in time."""
        return InFlight(limit=max(1, self.limit // 2), most=self.most)
