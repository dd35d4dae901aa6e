"""When a slot's worker may be started again after it has died, and when its first release is left out for a while.

Times are arguments, in seconds of a clock that only goes forward. Starting and asking again is
`edge_agent.supervisor.slots.worker_lifecycle`'s.
"""

from __future__ import annotations

from edge_agent.backoff import doubling

RESTART_BASE_S = 0.25
RESTART_CAP_S = 60.0
STEADY_S = 60.0
"""A worker that has lived this long starts the backoff anew."""

PATIENCE = 3
"""Deaths in a row before the first release is left out, so that a broken file does not keep the slot silent."""

REST_S = 600.0
"""How long it is left out, in seconds."""


class RestartPolicy:
    """See the module."""

    def __init__(self) -> None:
        self._deaths = 0
        self._ready_at = 0.0
        self._not_before = 0.0
        self._rests_until = 0.0

    @property
    def resting(self) -> bool:
        """Whether the first release is left out."""
        return bool(self._rests_until)

    def forget(self) -> None:
        """Forget the deaths, as after a roll back."""
        self._deaths, self._not_before, self._rests_until = 0, 0.0, 0.0

    def ready(self, now: float) -> None:
        """A worker answers."""
        self._ready_at = now

    def died(self, now: float) -> None:
        """A worker that should have answered has died, or none could be started."""
        steady = self._ready_at and now - self._ready_at > STEADY_S
        self._ready_at = 0.0  # it says nothing of the next one, which may not even be started
        self._deaths = 1 if steady else self._deaths + 1
        # The first restart is immediate: connections wait in the backlog.
        delay = 0.0 if self._deaths == 1 else doubling(self._deaths - 2, base_s=RESTART_BASE_S, cap_s=RESTART_CAP_S)
        self._not_before = now + delay

    def wait_s(self, now: float) -> float:
        """Return the seconds until one may be started."""
        return max(0.0, self._not_before - now)

    def due(self, now: float) -> bool:
        """Whether one may be started."""
        return now >= self._not_before

    def rest(self, now: float) -> bool:
        """Leave the first release out if it keeps dying; return whether that is new."""
        if self._deaths < PATIENCE or self.resting:
            return False
        self._rests_until, self._not_before = now + REST_S, 0.0
        return True

    def rested(self, now: float) -> bool:
        """Return whether the rest has just come to its end."""
        over = self.resting and now >= self._rests_until
        if over:
            self._rests_until = 0.0
        return over
