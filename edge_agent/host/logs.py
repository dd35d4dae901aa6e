"""The agent's log lines: priorities for journald, and a limit on lines that repeat.

Under systemd a line begins with `<N>` (sd-daemon(3)), and the time is journald's own. A fault that repeats may not fill
the log of a device nobody looks at: of each kind of line, some are written, and the next one says how many were not.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

BURST = 10
"""Lines of one kind within `WINDOW_S` that are written."""

WINDOW_S = 60.0
KINDS = 512
"""Kinds of lines remembered; beyond it the counts begin anew."""

_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))


class RepeatLimit(logging.Filter):
    """Lets at most `BURST` lines of one kind pass in `WINDOW_S` seconds. A kind is the line before its values are put
    in, so that a text with a changing number repeats, too. `clock` gives seconds and only goes forward."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind, now = (record.name, record.levelno, str(record.msg)), self._clock()
        begun, count = self._seen.get(kind, (now, 0))
        left_out = 0
        if now - begun >= WINDOW_S:
            begun, count, left_out = now, 0, count - BURST
        if len(self._seen) >= KINDS and kind not in self._seen:
            self._seen.clear()
        self._seen[kind] = (begun, count + 1)
        if left_out > 0:
            record.msg, record.args = f"{record.getMessage()} ({left_out} similar lines suppressed)", ()
        return count < BURST


class LineFormatter(logging.Formatter):
    """One record, one line; `journald` puts the priority first and leaves the time out."""

    def __init__(self, *, journald: bool) -> None:
        super().__init__("%(message)s" if journald else "%(asctime)s %(levelname)s %(message)s")
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not self._journald:
            return text
        prefix = f"<{next(number for level, number in _PRIORITIES if record.levelno >= level)}>"
        return "\n".join(prefix + line for line in text.splitlines())


def goes_to_journald(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether `stream` is the one systemd has connected to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def configure_logging(*, verbose: bool) -> None:
    """Send the log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(journald=goes_to_journald(sys.stderr, os.environ)))
    handler.addFilter(RepeatLimit())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
