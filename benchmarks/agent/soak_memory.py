"""Memory of the agent and of its workers over a soak: what is sampled, and what it says about growth.

Two processes live as long as the soak, and have a slope. Workers that are replaced every few minutes have none worth
the name (a step of 16 kB within two minutes reads as 0.7 MB/h): they have levels.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil

WORKER_WARM_S = 180.0
"""A new worker's memory still grows by some kilobytes in its first minutes, as its pools fill."""

FALL_MB = 1.0
"""Nothing here gives so much back between two samples: it was the kernel, which takes pages of files from everyone when
memory is short."""

REFILL_S = 300.0
"""What is still needed of such pages is read again within this time."""

Samples = list[tuple[float, float]]
"""Seconds since the beginning, megabytes."""


class Watch(threading.Thread):
    """Samples the memory of the agent and of its workers until it is stopped."""

    def __init__(self, pid: int, every_s: float) -> None:
        super().__init__(daemon=True)
        self.supervisor: Samples = []
        self.workers: dict[int, Samples] = {}
        self.stop = threading.Event()
        self.began = time.monotonic()
        self._every_s = every_s
        self._process = psutil.Process(pid)

    def run(self) -> None:
        while not self.stop.wait(self._every_s):
            now = time.monotonic() - self.began
            self.supervisor.append((now, self._process.memory_info().rss / 2**20))
            for child in self._process.children():
                try:
                    if "edge_agent.worker" in child.cmdline():
                        self.workers.setdefault(child.pid, []).append((now, child.memory_info().rss / 2**20))
                except psutil.NoSuchProcess:
                    continue


@dataclass(frozen=True, kw_only=True)
class Life:
    """One worker from when its pools are full to its end: how long that was, and its megabytes at both."""

    lasted_s: float
    warm_mb: float
    end_mb: float


def growth(watch: Watch, steady: int, lasted: float) -> dict[str, Any]:
    """Return how fast supervisor and steady worker grew after a sixth of the time (ten minutes of an hour) and
    after the kernel last took pages from them, and what became of the other workers."""
    settled = lasted / 6
    kept = {"supervisor": watch.supervisor, "steady": watch.workers[steady]}
    table: dict[str, Any] = {}
    for name, samples in kept.items():
        since = max([settled, *(when + REFILL_S for when in falls(samples))])
        table[f"{name}_mb_per_h"] = slope([sample for sample in samples if sample[0] > since]) * 3600
        table[f"{name}_since_min"] = since / 60
        table[f"{name}_mb"] = samples[-1][1]
    others = [samples for pid, samples in watch.workers.items() if pid != steady]
    found = lives(others, min(WORKER_WARM_S, settled))
    table |= {"workers": len(others), "lives": [asdict(life) for life in found]}
    return table | _of_lives(found) if found else table


def _of_lives(found: Sequence[Life]) -> dict[str, float]:
    """Return how workers grew while they lived and from one to the next; in a short soak none lives long enough."""
    grown, ends = [life.end_mb - life.warm_mb for life in found], [life.end_mb for life in found]
    return {
        "life_growth_mb": statistics.median(grown),
        "life_growth_max_mb": max(grown),
        "level_min_mb": min(ends),
        "level_max_mb": max(ends),
        "mb_per_life": slope(list(enumerate(ends))),
    }


def lives(workers: Sequence[Samples], warm_s: float) -> list[Life]:
    """Return the lives that went on after their first `warm_s` and of which the kernel took nothing, in order."""
    found = []
    for samples in (one for one in workers if not falls(one)):
        warm = [sample for sample in samples if sample[0] >= samples[0][0] + warm_s]
        if len(warm) > 1:
            found.append(Life(lasted_s=warm[-1][0] - warm[0][0], warm_mb=warm[0][1], end_mb=warm[-1][1]))
    return found


def falls(samples: Samples) -> list[float]:
    """Return when the kernel had taken pages."""
    return [when for (_, before), (when, after) in itertools.pairwise(samples) if before - after > FALL_MB]


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """Return the least-squares slope; 0 of fewer than two samples."""
    if len(samples) < 2:
        return 0.0
    return statistics.linear_regression(*zip(*samples, strict=True)).slope
