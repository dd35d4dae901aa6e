"""A search's progress where it goes into a log: what is taken over and what ends it at once, all else in a line now and
then, each twice as late as the one before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from edge_compression.evaluation.candidate import Candidate
from edge_compression.search.progress import front

FIRST_S = 10.0
"""Seconds until the first line about how far it is."""

STEPS = ("building ", "scoring ", "confirming ", "timing ")
"""How texts begin that tell of one step of many."""


class FewLines:
    """Says little: a search of an hour has nine lines. `now` are seconds of a clock that only goes on. Thread-safe."""

    def __init__(self, say: Callable[[str], None], now: Callable[[], float]) -> None:
        self._say, self._now, self._lock = say, now, threading.Lock()
        self._began, self._next = now(), FIRST_S

    def said(self, text: str) -> None:
        """Pass on what is no step of many."""
        if not text.startswith(STEPS):
            self._say(text)

    def judged(self, _: Candidate, known: Iterable[Candidate], original_size: int) -> None:
        """Say how far it is, if that was not said lately."""
        seconds = self._now() - self._began
        with self._lock:
            if seconds < self._next:
                return
            while self._next <= seconds:
                self._next *= 2.0
        all_known = tuple(known)
        done = sum(one.status != "pending" or one.quality is not None for one in all_known)
        best = next(iter(front(all_known)), None)
        words = (
            f"; smallest so far: {best.id}, {best.size / original_size:.2f} of the bytes" if best is not None else ""
        )
        self._say(f"{seconds:.0f} s: {done} of {len(all_known)} candidates judged{words}")
