"""How long ago a slot last had an input, and since when that is too long. Pure."""

from __future__ import annotations

from msgspec import Struct

NO_INPUT = "no-input"
"""The fault of a slot whose input has fallen silent."""


class Freshness(Struct, kw_only=True):
    """Whether input is younger than `stale_after_s` seconds (None: whatever its age). Times are of one clock."""

    stale_after_s: float | None
    last: float
    stale: bool = False

    def seen(self, now: float) -> bool:
        """Note an input; return whether that ends a silence that was a fault."""
        was, self.stale, self.last = self.stale, False, now
        return was

    def look(self, now: float) -> bool:
        """Return whether the silence has become a fault just now."""
        late = self.stale_after_s is not None and now - self.last > self.stale_after_s
        begins = late and not self.stale
        self.stale = late
        return begins
