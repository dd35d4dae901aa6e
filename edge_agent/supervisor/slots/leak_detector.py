"""Whether a process leaks: its memory, window by window, told from the steps that loading and warming up take. Pure.

A window counts by the least memory seen in it, so that what one request holds for a moment is no growth. One window's
rise counts for at most a part of what makes a leak: a model that is loaded late is one large step, a leak is many.
What is done about a leak is in `edge_agent.supervisor.slots.worker_lifecycle`.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

WINDOWS = 8
"""In how many windows memory must have risen at least."""


class LeakState(Struct, frozen=True, kw_only=True):
    """What has been seen of a process: the last full window's least memory, the open window's so far and its end, and
    by how much the least has risen in all, all in megabytes and seconds. It is a leak from `leak_mb` on."""

    leak_mb: float
    window_s: float
    floor_mb: float | None = None
    lowest_mb: float = float("inf")
    ends: float | None = None
    grown_mb: float = 0.0

    @property
    def leaks(self) -> bool:
        return self.grown_mb >= self.leak_mb


def grow(growth: LeakState, memory_mb: float, now: float) -> LeakState:
    """Return the growth after a reading at `now`, in seconds of a clock that only goes forward.

    A floor that falls takes back what it falls by: memory that comes and goes is no leak.
    """
    ends = now + growth.window_s if growth.ends is None else growth.ends
    if now < ends:
        return replace(growth, lowest_mb=min(growth.lowest_mb, memory_mb), ends=ends)
    floor_mb = min(growth.lowest_mb, memory_mb)
    rise_mb = 0.0 if growth.floor_mb is None else min(floor_mb - growth.floor_mb, growth.leak_mb / WINDOWS)
    grown_mb = max(0.0, growth.grown_mb + rise_mb)
    return replace(growth, floor_mb=floor_mb, lowest_mb=memory_mb, ends=now + growth.window_s, grown_mb=grown_mb)
