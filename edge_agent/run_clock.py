"""A clock that goes on only while its owner runs: what patience with others is measured by. Pure.

A host that is paused, a frozen cgroup, SIGSTOP or a closed laptop stop the judge together with the judged. Nobody was
silent then, there was nobody to listen; a deadline that goes on meanwhile blames the wrong one. Whoever measures
patience calls `tick` regularly and compares times of `now`.
"""

from __future__ import annotations

LATE_S = 2.0
"""A tick that comes later than this after the last one says that the owner itself did not run, in seconds. A busy
small board delays an owner that ticks once a second by less."""


class RunClock:
    """`now` in seconds, starting at 0; `judging` says whether what others have said by now has been read: not at a tick
    that came late, unless the one before was late as well."""

    def __init__(self, real: float) -> None:
        """`real` is the time of a clock that only goes forward, in seconds, as at every `tick`."""
        self.now = 0.0
        self.judging = True
        self._real = real
        self._late = False

    def tick(self, real: float) -> float:
        """Go on to `real`; return the seconds during which the owner did not run, 0.0 for a tick in time."""
        passed, self._real = max(0.0, real - self._real), real
        late = passed > LATE_S
        self.judging, self._late = not late or self._late, late
        self.now += min(passed, LATE_S)
        return max(0.0, passed - LATE_S)
