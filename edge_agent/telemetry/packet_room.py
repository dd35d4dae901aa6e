"""How long a payload may be for this broker, where it does not say: learned from connections that it ended. Pure.

A broker with MQTT 5 names its limit in CONNACK, or at least the reason when it hangs up; one with 3.1.1 just hangs up,
and the same message is the first to go again.
"""

from __future__ import annotations

from edge_io.mqtt.words import PACKET_TOO_LARGE, Disconnected

SHORT_S = 10.0
"""A connection that ended within so long may have ended for what was sent on it."""

SUSPICIONS = 4
"""So many short connections in a row, the same longest message under way on each, are no accident."""

LEARNED_S = 6 * 3600.0
"""What was learned counts for so long: the broker may have been given another limit, or it was something else."""

SMALLEST_BYTES = 256
"""Below this nothing is learned: no broker is that strict, the link is bad."""


class PacketRoom:
    """Of one link. Messages are known by their numbers; times are monotonic."""

    def __init__(self) -> None:
        self._under_way: dict[int, int] = {}
        self._learned: int | None = None
        self._suspected: tuple[int, int] = (0, 0)
        self._since = self._learned_at = 0.0

    def limit(self, said: int | None) -> int | None:
        """Return the most bytes of a payload, given what the broker `said`; None without a limit."""
        known = [limit for limit in (said, self._learned) if limit is not None]
        return min(known, default=None)

    def connected(self, now: float) -> None:
        self._under_way.clear()
        self._since = now
        if now - self._learned_at > LEARNED_S:
            self._learned = None

    def sent(self, number: int, size: int) -> None:
        self._under_way[number] = size

    def done(self, number: int) -> None:
        self._under_way.pop(number, None)

    def lost(self, event: Disconnected, now: float) -> int | None:
        """Take in how a connection ended; return the new limit if one was learned."""
        longest = max(self._under_way.values(), default=0)
        self._under_way.clear()
        if longest <= SMALLEST_BYTES or event.ending != "lost":
            return None
        if event.code == PACKET_TOO_LARGE:
            return self._learn(longest - 1, now)
        if event.code is not None or now - self._since > SHORT_S:
            self._suspected = (0, 0)
            return None
        size, times = self._suspected
        self._suspected = (longest, times + 1 if size == longest else 1)
        return self._learn(longest - 1, now) if self._suspected[1] >= SUSPICIONS else None

    def _learn(self, limit: int, now: float) -> int:
        self._learned_at = now
        self._learned, self._suspected = limit, (0, 0)
        return limit
