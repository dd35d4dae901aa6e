"""The work a search may do: how much is left for trying, what is kept for timing, and how it is stopped early.

It is counted in seconds of an idle machine (`work_meter`), so that a busy one tries as much and takes longer.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from edge_compression.passes import Prune
from edge_compression.recipes.recipe import Recipe
from edge_contracts.errors import BundleError

USED_UP, STOPPED = "the time budget was used up", "the search was stopped"

SMALL_S, PER_MEGABYTE_S, LONGEST_S = 100.0, 40.0, 840.0
SMALL_BYTES = 4_000_000
"""The default: what a small model gets, what every further megabyte adds, and the most: an engineer's coffee."""

RESERVE_SHARE = 0.4
"""At most this share of the budget is kept for timing and confirming what was found."""


CORE_BUILD_S = 120.0
"""Processor time that a build of the core has at least, however little is left."""


PROCESS_S, BUILD_S, TRAIN_S = 1.2, 1.0, 30.0
"""What a candidate costs besides its model's answers: each of three processes to start, the passes of most recipes, and
a training."""

PRUNE_ANSWERS = 8000
"""Answers that pruning computes, about (`passes.prune`)."""


class BudgetSpentError(BundleError):
    """There is no time for another step; the message says why."""

    reason = "budget"


def default_budget(model_bytes: int) -> float:
    """Return the seconds a search takes at most when nobody says: two minutes for small models, fifteen for large
    ones, what loading and reporting take included."""
    return min(LONGEST_S, SMALL_S + PER_MEGABYTE_S * max(0, model_bytes - SMALL_BYTES) / 1e6)


def expected_seconds(recipes: Sequence[Recipe], sample_s: float, samples: int) -> float:
    """Return about how much work it is to build and judge these recipes, for a model that takes `sample_s` for one of
    `samples`: a word to who waits, no bound."""
    total = 0.0
    for one in recipes:
        pruned = any(isinstance(step, Prune) for step in one.passes)
        total += 3 * PROCESS_S + 1.5 * samples * sample_s + (TRAIN_S if one.trains else BUILD_S)
        total += PRUNE_ANSWERS * sample_s if pruned else 0.0
    return total


class TimeBudget:
    """One search's budget; `worked` returns the seconds of work done so far. Thread-safe: workers ask, whoever
    interrupts stops."""

    def __init__(self, budget_s: float, worked: Callable[[], float]) -> None:
        self._budget_s, self._worked = budget_s, worked
        self._stopped = threading.Event()
        self._last_try = budget_s

    def reserve(self, seconds: float) -> None:
        """Keep seconds at the end for what follows the trying."""
        self._last_try = self._budget_s - min(seconds, RESERVE_SHARE * self._budget_s)

    @property
    def left(self) -> float:
        """The seconds of work left for trying, 0 when there are none."""
        return max(0.0, self._last_try - self._worked())

    def allowance(self, *, core: bool) -> float:
        """Return the processor seconds that one build may take; the core is built whatever is left. Raises
        BudgetSpentError when there are none, or when the search was stopped."""
        left = self.left
        if self.stopped or (left <= 0.0 and not core):
            raise BudgetSpentError(self.why())
        return max(left, CORE_BUILD_S) if core else left

    def why(self) -> str:
        """Return why nothing more is tried."""
        return STOPPED if self.stopped else USED_UP

    @property
    def over(self) -> bool:
        return self.stopped or self.left <= 0.0

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
