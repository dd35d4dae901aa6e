"""The messages that the broker has not acknowledged yet: how many may be under way, since when one is missing. Pure.

MQTT sends a message again after a new connection only (MQTT 5, section 4.4). So an acknowledgement that never comes
holds its place in the window until somebody ends the connection.
"""

from __future__ import annotations

from msgspec import Struct

ACKNOWLEDGE_S = 30.0
"""How long the broker may take to acknowledge a message that has left this machine."""

LONGEST_S = 600.0
"""How long at most a message counts as still on its way out of this machine, on a slow link."""


class Sent(Struct, kw_only=True):
    """A message under way. Times are monotonic; `since` moves until it has surely left this machine."""

    number: int
    topic: str
    began: float
    since: float
    left: bool = False


class Unacknowledged:
    """Messages by the packet identifier they were sent with."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._sent: dict[int, Sent] = {}

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def full(self) -> bool:
        return len(self._sent) >= self.limit

    def add(self, packet: int, number: int, topic: str, now: float) -> None:
        self._sent[packet] = Sent(number=number, topic=topic, began=now, since=now)

    def take(self, packet: int) -> Sent | None:
        """Return and forget the message that the broker has answered; None for one that is not known."""
        return self._sent.pop(packet, None)

    def look(self, *, leaving: bool, now: float) -> None:
        """Note whether bytes wait in this machine. While they do, nothing that may be among them is missing; once they
        do not, everything sent so far has left, whatever is sent later (a PINGREQ waits for a moment, too)."""
        for sent in self._sent.values():
            if not leaving:
                sent.left = True
            elif not sent.left and now - sent.began < LONGEST_S:
                sent.since = now

    def paused(self, seconds: float) -> None:
        """Note that this process did not run for so long: nobody else's patience is measured by that."""
        for sent in self._sent.values():
            sent.since += seconds

    def missing(self, now: float) -> Sent | None:
        """Return a message whose acknowledgement should have come by `now`."""
        return next((sent for sent in self._sent.values() if now - sent.since > ACKNOWLEDGE_S), None)
