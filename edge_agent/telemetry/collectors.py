"""Which controllers collect telemetry now, as far as this device can know. Pure; times are monotonic.

A retained announcement proves nothing: after a power cut of the site, a broker with persistence announces collectors
that are gone. A controller is believed once its word has come *live* over this connection: announced while we were
subscribed, or sent as the answer to our presence (docs/decisions/0008-telemetry-waits-for-a-collector.md).
"""

from __future__ import annotations

MAX_COLLECTORS = 64
"""Collectors remembered; one is enough to send."""

ASK_S = (30.0, 600.0)
"""First and longest wait for an answer until our presence is published again; doubled each time."""


class Collectors:
    """Of one link. Anybody who may write on the collectors' topics can make us send too early or wait longer."""

    def __init__(self) -> None:
        self._proven: set[str] = set()
        self._announced: set[str] = set()
        self._ask_after = self._since = 0.0
        self._blind = False
        self._wait_s = ASK_S[0]

    @property
    def present(self) -> bool:
        return bool(self._proven)

    def forget(self) -> None:
        """The connection is gone, and what was known with it."""
        self._proven.clear()
        self._announced.clear()

    def connected(self, now: float, *, blind: bool = False) -> None:
        """Begin to wait for an answer to our presence. Announcements may have come already. `blind`: the broker does
        not let us hear them, so that only answers can come."""
        self._blind = blind
        self._since = now
        self._wait_s = ASK_S[0]
        self._ask_after = now + self._wait_s

    def announced(self, name: str, *, here: bool, retained: bool) -> bool:
        """Take in a word on a collector's own topic; return whether a collector is new and wants to know who is
        here."""
        if not here:
            self._announced.discard(name)
            self._proven.discard(name)
            return False
        if len(self._announced) < MAX_COLLECTORS:
            self._announced.add(name)
        return not retained and self.proven(name)

    def proven(self, name: str) -> bool:
        """Take in that this collector is there now; return whether that is new."""
        new = name not in self._proven and len(self._proven) < MAX_COLLECTORS
        if new:
            self._proven.add(name)
        return new

    def ask(self, now: float) -> bool:
        """Return whether to ask again: some collector may be there, none has shown itself, and it has been a while."""
        if self._proven or not (self._announced or self._blind) or now < self._ask_after:
            return False
        self._wait_s = min(ASK_S[1], 2 * self._wait_s)
        self._ask_after = now + self._wait_s
        return True

    def unanswered(self, now: float) -> tuple[str, ...]:
        """Return who is announced, if none of them has shown itself although they were asked."""
        return () if self._proven or now - self._since < ASK_S[0] + 5.0 else tuple(sorted(self._announced))
