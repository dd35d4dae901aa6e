"""How much a search has worked: processor time of this process and all it started, in seconds of an idle machine.

Time on the wall says how busy the machine was, not how much was tried: a search that is bounded by it ends with less
beside a busy neighbor. `time_budget` spends what is counted here.
"""

from __future__ import annotations

import resource
import time

import psutil

FRESH_S = 0.25
"""For so long a reading is taken for the present one: looking at every process costs milliseconds."""

BUSY_SHARE = 0.6
"""Share of its processors that a search keeps busy on an idle machine: workers wait for each other's pace measurements
and for processes to start. Of eight tasks 1.0 to 1.3 of two processors were busy (benchmarks/results/compression.json).
"""


class WorkMeter:
    """Counts from its making on. A second of work is what `workers` processes do in a second of an idle machine."""

    def __init__(self, workers: int) -> None:
        self._busy = max(1.0, BUSY_SHARE * workers)
        self._began = _processor_seconds()
        self._read_at, self._seconds = time.monotonic(), 0.0

    def __call__(self) -> float:
        """Return the seconds worked so far; it never falls."""
        now = time.monotonic()
        if now - self._read_at >= FRESH_S:
            self._seconds = max(self._seconds, (_processor_seconds() - self._began) / self._busy)
            self._read_at = now
        return self._seconds


def _processor_seconds() -> float:
    """Return the processor time of this process, of its children that ended and of those that run."""
    ended = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total = sum(used.ru_utime + used.ru_stime for used in ended)
    for child in psutil.Process().children():
        try:
            used = child.cpu_times()
        except psutil.Error:  # ended since
            continue
        total += used.user + used.system + used.children_user + used.children_system
    return float(total)
