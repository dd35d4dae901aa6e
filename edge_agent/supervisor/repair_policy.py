"""When a damaged release is fetched again. Pure; times in seconds of a clock that only goes forward.

At once when the damage is news, and then with a growing wait: a card that loses what is written to it must not have
its site's link used up. Fetching is the updater's (`edge_agent.updater.repair`).
"""

from __future__ import annotations

import math
from collections.abc import Set

from edge_agent.backoff import doubling

REPAIR_BASE_S = 10.0
REPAIR_CAP_S = 3600.0
"""First and longest wait between two attempts, in seconds."""

RELAPSE_S = 24 * 3600.0
"""Damage that comes sooner than this after the last attempt goes on with that one's waits, in seconds."""


class RepairPolicy:
    """Counts the attempts, whatever they are made at."""

    def __init__(self) -> None:
        self._known: Set[str] = frozenset()
        self._tries = 0
        self._last = -math.inf

    def look(self, damaged: Set[str], now: float) -> float:
        """Take note of what is damaged; return when to try at the latest because of what is news, else infinity."""
        news = damaged - self._known
        self._known = set(damaged)
        if not news:
            return math.inf
        if now - self._last > RELAPSE_S:
            self._tries = 0
        return max(now, self._last + self._wait())

    def tried(self, now: float, *, damaged: bool) -> float:
        """An updater has ended; return when to try again at the latest if something is still `damaged`, else
        infinity."""
        if not damaged and not self._known:
            return math.inf
        self._last = now
        self._tries += 1
        return now + self._wait() if damaged else math.inf

    def _wait(self) -> float:
        return 0.0 if self._tries == 0 else doubling(self._tries - 1, base_s=REPAIR_BASE_S, cap_s=REPAIR_CAP_S)
