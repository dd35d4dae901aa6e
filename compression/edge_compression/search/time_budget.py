"""The time a search may take: how much is left for trying, what is kept for timing, and how it is stopped early."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from edge_contracts.errors import BundleError

USED_UP, STOPPED = "the time budget was used up", "the search was stopped"

SMALL_S, PER_MEGABYTE_S, LONGEST_S = 100.0, 40.0, 840.0
SMALL_BYTES = 4_000_000
"""The default: what a small model gets, what every further megabyte adds, and the most: an engineer's coffee."""

RESERVE_SHARE = 0.4
"""At most this share of the budget is kept for timing and confirming what was found."""


class BudgetSpentError(BundleError):
    """There is no time for another step; the message says why."""

    reason = "budget"


def default_budget(model_bytes: int) -> float:
    """Return the seconds a search takes at most when nobody says: two minutes for small models, fifteen for large
    ones, what loading and reporting take included."""
    return min(LONGEST_S, SMALL_S + PER_MEGABYTE_S * max(0, model_bytes - SMALL_BYTES) / 1e6)


class TimeBudget:
    """One search's time. Thread-safe: workers ask, whoever interrupts stops."""

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._stopped = threading.Event()
        self.deadline = time.monotonic() + budget_s
        self._last_try = self.deadline

    def reserve(self, seconds: float) -> None:
        """Keep seconds at the end for what follows the trying."""
        self._last_try = self.deadline - min(seconds, RESERVE_SHARE * self._budget_s)

    def remaining(self) -> float:
        """Return the seconds left for trying. Raises OverError when there are none."""
        left = self._last_try - time.monotonic()
        if self.stopped or left <= 0:
            raise BudgetSpentError(self.why())
        return left

    def why(self) -> str:
        """Return why nothing more is tried."""
        return STOPPED if self.stopped else USED_UP

    @property
    def over(self) -> bool:
        return self.stopped or time.monotonic() >= self._last_try

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """Let no further step begin."""
        self._stopped.set()


@contextmanager
def stopped_by_interrupt(clock: TimeBudget) -> Iterator[None]:
    """Within the block Ctrl-C stops the clock and raises nothing: an exception may strike between the taking of a lock
    and the block that gives it back.

    The main thread has to look at the clock now and then; it need not be the one that the signal wakes. In another
    thread, or where Ctrl-C is ignored, nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: clock.stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
