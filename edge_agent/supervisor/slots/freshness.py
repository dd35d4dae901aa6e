"""How long ago a slot last had an input, and since when that is too long. Pure."""

from __future__ import annotations

from msgspec import Struct

from edge_agent.run_clock import RunClock

NO_INPUT = "no-input"
"""The fault of a slot whose input has fallen silent."""


class Freshness(Struct, kw_only=True):
    """Whether input is younger than `stale_after_s` seconds (None: whatever its age). Times are of one clock. A silence
    counts only while somebody looked."""

    stale_after_s: float | None
    last: float
    stale: bool = False
    run: RunClock | None = None
    heard: float = 0.0

    def seen(self, now: float) -> bool:
        """Note an input; return whether that ends a silence that was a fault."""
        was, self.stale, self.last = self.stale, False, now
        run = self.run = self.run or RunClock(now)
        run.tick(now)
        self.heard = run.now
        return was

    def look(self, now: float) -> bool:
        """Return whether the silence has become a fault just now. To be called about once a second."""
        run = self.run = self.run or RunClock(self.last)
        run.tick(now)
        if not run.judging:
            return False  # what has come meanwhile is not read yet
        late = self.stale_after_s is not None and run.now - self.heard > self.stale_after_s
        begins = late and not self.stale
        self.stale = late
        return begins
