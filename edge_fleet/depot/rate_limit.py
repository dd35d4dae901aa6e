"""How much a depot gives to whom: byte rates and a bound on devices served at once. Pure; time is an argument.

A depot that says "later" keeps the fleet's download short: few devices finish fast instead of all of them slowly.
"""

from __future__ import annotations

from collections import OrderedDict

from edge_contracts.codec import StrictRecord
from edge_contracts.limits import MIB


class Pace(StrictRecord, frozen=True, kw_only=True):
    """Bytes per second for one device and for all together, the burst a device may take at once, in bytes, the devices
    downloading at once, and how long a silent device keeps its place, in seconds."""

    device_rate: float = 8.0 * MIB
    device_burst: float = 4.0 * MIB
    total_rate: float = 64.0 * MIB
    devices: int = 64
    idle_s: float = 5.0


class TokenBucket:
    """A byte budget that refills at `rate` up to `burst` and may be overdrawn by one answer."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._time = now

    def wait(self, now: float) -> float:
        """Return the seconds until something may be taken; 0 means now."""
        self._tokens = min(self._burst, self._tokens + (now - self._time) * self._rate)
        self._time = now
        return 0.0 if self._tokens > 0.0 else max(-self._tokens / self._rate, 1e-3)

    def take(self, amount: int) -> None:
        """Take what was given, even if it overdraws."""
        self._tokens -= amount


class RequesterLimits:
    """Decides whether a device is served now. Times are monotonic seconds.

    Every answer counts against the rates; only `bulk` needs one of the places, so that a large fleet's small
    questions never wait for a few long downloads.
    """

    def __init__(self, pace: Pace, now: float) -> None:
        self._pace = pace
        self._total = TokenBucket(pace.total_rate, pace.total_rate, now)
        self._buckets: OrderedDict[str, tuple[TokenBucket, float]] = OrderedDict()
        self._places: OrderedDict[str, float] = OrderedDict()

    def wait(self, device: str, now: float, *, bulk: bool) -> float:
        """Return 0 if the device is served now, else the seconds after which to ask again."""
        self._forget_idle(now)
        if bulk and device not in self._places and len(self._places) >= self._pace.devices:
            return self._pace.idle_s
        if bulk:
            self._places[device] = now
            self._places.move_to_end(device)
        known = self._buckets.pop(device, None)
        bucket = TokenBucket(self._pace.device_rate, self._pace.device_burst, now) if known is None else known[0]
        self._buckets[device] = (bucket, now)
        return max(bucket.wait(now), self._total.wait(now))

    def spend(self, device: str, amount: int) -> None:
        """Charge the bytes of an answer to a device that was admitted."""
        self._buckets[device][0].take(amount)
        self._total.take(amount)

    def _forget_idle(self, now: float) -> None:
        limit = now - self._pace.idle_s
        while self._places and next(iter(self._places.values())) <= limit:
            self._places.popitem(last=False)
        while self._buckets and next(iter(self._buckets.values()))[1] <= limit:
            self._buckets.popitem(last=False)
