"""Failures of answers in the log: each kind with its traceback once a minute, the others as a number.

A client can repeat a request as fast as it likes; the log of a device lies on a card that wears out.
"""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Final

PERIOD_S: Final = 60.0
"""How long a failure like one that was written is only counted, in seconds."""

_MAX_KINDS: Final = 64

_log = logging.getLogger(__name__)


class FailureLog:
    """Failures are of one kind if they have one type and were raised at one place."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[type[BaseException], object, int], tuple[float, int]] = {}

    def report(self, what: str, error: BaseException) -> None:
        """Write `what` failed and the error's traceback, unless one of its kind was written a moment ago."""
        now, kind = time.monotonic(), (type(error), *_place(error.__traceback__))
        written_at, others = self._kinds.get(kind, (-PERIOD_S, 0))
        if now - written_at < PERIOD_S:
            self._kinds[kind] = written_at, others + 1
            return
        if len(self._kinds) >= _MAX_KINDS:
            self._kinds.clear()
        self._kinds[kind] = now, 0
        more = f" ({others} more like it since the last one written)" if others else ""
        _log.error("%s%s", what, more, exc_info=error)


def _place(traceback: TracebackType | None) -> tuple[object, int]:
    """Return the code and line where an exception was raised."""
    place: tuple[object, int] = None, 0
    while traceback is not None:
        place = traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next
    return place
