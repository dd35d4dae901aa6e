"""Connections that the broker accepted and that ended soon, again and again: what may be the matter. Pure.

With MQTT 3.1.1 a broker never says why, and some with MQTT 5 do not either (Mosquitto 2.0 takes a connection over
without a word).
"""

from __future__ import annotations

from edge_io.mqtt.words import Disconnected

BRIEF_S = 10.0
"""A connection that ended within so long was no success."""

BRIEF_IN_ROW = 4
"""So many in a row are named."""

CAUSES = (
    "another client may have this client id, or the broker ends connections over a message that is too long or that "
    "it does not allow"
)


class BriefConnections:
    """Of one link; times are monotonic."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._in_row = 0

    def connected(self, now: float) -> None:
        self._since = now

    def lasts(self, now: float) -> bool:
        """Return whether the connection has held long enough; then it is a success."""
        if self._since is None or now - self._since < BRIEF_S:
            return False
        self._in_row = 0
        return True

    def ended(self, event: Disconnected, now: float) -> str:
        """Take in an end, or that no connection was made; return what may be the matter, "" if there is no need to
        guess."""
        began, self._since = self._since, None
        if began is None or event.ending not in ("lost", "taken-over"):
            return ""
        self._in_row = self._in_row + 1 if now - began < BRIEF_S else 0
        if self._in_row < BRIEF_IN_ROW:
            return ""
        return event.reason if event.code is not None else f"{event.reason}: {CAUSES}"
