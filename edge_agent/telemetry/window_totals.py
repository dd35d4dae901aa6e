"""Adding up what workers report into windows: heartbeats are totals since a worker's start, windows are differences."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from edge_agent.histogram_names import TagSlots
from edge_agent.ipc.worker import Heartbeat

_NOTHING = Heartbeat(counters={}, served_by={}, latency_log2_us=(), rung="", idle_s=0.0)
FAILURES = ("errors", "guard_output")
"""Counters of answers a release owed and did not give: the engine failed, or the answer was out of bounds."""


class WindowTotals(Struct, kw_only=True):
    """Sums since the last `clear`, over any number of workers."""

    counters: dict[str, int] = field(default_factory=dict)
    served_by: dict[str, int] = field(default_factory=dict)
    latency_log2_us: list[int] = field(default_factory=list)
    histograms: dict[str, list[int]] = field(default_factory=dict)
    apart: TagSlots = field(default_factory=TagSlots)

    def add(self, before: Heartbeat | None, now: Heartbeat) -> None:
        """Add what one worker did between two of its heartbeats (None: since its start)."""
        before = before or _NOTHING
        _add(self.counters, before.counters, now.counters)
        _add(self.served_by, before.served_by, now.served_by)
        _add_bins(self.latency_log2_us, before.latency_log2_us, now.latency_log2_us)
        for name, bins in now.histograms.items():
            place = self.apart.place(name, len(bins))
            if place is not None:
                _add_bins(self.histograms.setdefault(place, []), before.histograms.get(name, ()), bins)

    def count(self, name: str, number: int) -> None:
        """Add to one counter."""
        self.counters[name] = self.counters.get(name, 0) + number

    @property
    def requests(self) -> int:
        return self.counters.get("requests", 0) + self.counters.get("lost", 0)

    @property
    def failures(self) -> int:
        return sum(self.counters.get(name, 0) for name in (*FAILURES, "lost"))

    def clear(self) -> None:
        self.counters.clear()
        self.served_by.clear()
        self.latency_log2_us.clear()
        self.histograms.clear()
        self.apart = TagSlots()


def _add(sums: dict[str, int], before: Mapping[str, int], now: Mapping[str, int]) -> None:
    for name, total in now.items():
        sums[name] = sums.get(name, 0) + max(0, total - before.get(name, 0))


def _add_bins(sums: list[int], before: tuple[int, ...], now: tuple[int, ...]) -> None:
    sums.extend([0] * (len(now) - len(sums)))
    for index, total in enumerate(now):
        sums[index] += max(0, total - (before[index] if index < len(before) else 0))
