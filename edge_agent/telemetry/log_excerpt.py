"""The last lines of a slot's processes: kept as they came, bounded, and told as `line_redaction` lets them be.

They travel with the report of a release that was rejected or rolled back. Where they come from is in
`edge_agent.supervisor.process_output`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from edge_contracts.limits import MAX_EXCERPT_BYTES, MAX_EXCERPT_LINES

Origin = Literal["updater", "trial", "worker"]

MAX_KEPT_CHARS: Final = 1000
"""What is remembered of one line."""


class RecentLines:
    """The last lines of one slot's processes, oldest first. `clock` gives the time of day as text.

    They are kept as they came, cut to a bounded length; what may be told of them is worked out when they are asked for,
    so that a process that floods its log costs nothing more.
    """

    def __init__(self, clock: Callable[[], str]) -> None:
        self._clock = clock
        self._lines: deque[tuple[str, Origin | None, str]] = deque(maxlen=MAX_EXCERPT_LINES)

    def add(self, origin: Origin, line: str) -> None:
        """Take in a line that a process has written."""
        if line.strip():
            self._lines.append((f"{self._clock()} {origin}: ", origin, line[:MAX_KEPT_CHARS]))

    def note(self, about: Origin, text: str) -> None:
        """Take in what the supervisor says about a process, in words of ours."""
        self._lines.extend((f"{self._clock()} {about}> ", None, line[:MAX_KEPT_CHARS]) for line in text.splitlines())

    def forget(self) -> None:
        """Begin anew: another release is concerned."""
        self._lines.clear()

    def excerpt(self) -> str:
        """Return the newest lines that fit, oldest first; empty if there is none."""
        from edge_agent.telemetry.line_redaction import shareable  # a quarter of a megabyte of patterns, rarely used

        taken: list[str] = []
        room = MAX_EXCERPT_BYTES
        for prefix, origin, line in reversed(self._lines):
            told = prefix + shareable(line, origin)
            room -= len(told.encode("utf-8", "replace")) + 1
            if room < 0:
                break
            taken.append(told)
        return "\n".join(reversed(taken))
