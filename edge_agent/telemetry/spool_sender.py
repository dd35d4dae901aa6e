"""Sends the spool over a link, in order, as far as the broker takes it. What is under way is known here; the spool
itself is `edge_agent.telemetry.outbox`, whether somebody collects is `edge_agent.telemetry.collectors`.

What the broker refuses is kept and tried again ever more seldom; what it will never take is shortened
(`edge_agent.telemetry.shortened`) or named in a tombstone. Times are monotonic.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.backoff import doubling
from edge_agent.device_event import DeviceEvent
from edge_agent.mqtt.refusals import BrokerRefusals
from edge_agent.telemetry.outbox import Outbox
from edge_agent.telemetry.shortened import shorten_telemetry
from edge_io.mqtt.words import PACKET_TOO_LARGE, PAYLOAD_INVALID, TOPIC_INVALID, Acknowledged, Refused

IN_FLIGHT = 20
"""Messages handed to the broker and not acknowledged: MQTT 5's common Receive Maximum, and paho's own window."""

REFUSED_S = (5.0, 300.0)
"""First and longest wait after the broker refused a message until it is tried again; doubled each time."""

NEVER = frozenset({PACKET_TOO_LARGE, TOPIC_INVALID, PAYLOAD_INVALID})
"""Reasons that will be the same the next time: too large, topic not valid, payload format not valid."""

UNHEARD_TRIES = 6
"""A broker that has said so often that nobody is subscribed, for five minutes, while a collector answers is not
believed on this connection any more."""

UNSAID = frozenset({0x80, 0x83})
"""Reasons that say nothing: unspecified error, implementation specific error."""

UNSAID_TRIES = 7
"""A message that was refused so often without a reason, for five minutes, gives way to the next one."""


class SpoolSender:
    """Of one link. `publish` hands a body to it and returns its number, None when it takes none; `room` is how many
    bytes a body may have; `news` is told what changes; `date` gives a tombstone its UTC time."""

    def __init__(
        self,
        outbox: Outbox,
        refusals: BrokerRefusals,
        publish: Callable[[bytes], int | None],
        news: Callable[[tuple[DeviceEvent, ...]], None],
        date: Callable[[], str],
    ) -> None:
        self._outbox = outbox
        self._refusals = refusals
        self._publish = publish
        self._news = news
        self._date = date
        self._under_way: dict[int, int] = {}
        self._last_row = 0
        self._rewind = False
        self._held_until, self._refused_in_row = 0.0, 0
        self._unheard = 0
        self._unsaid: tuple[int, int] = (0, 0)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._under_way

    def restart(self) -> None:
        """The connection is gone: whatever is not acknowledged goes again, in order."""
        self._under_way.clear()
        self._last_row, self._rewind, self._unheard = 0, False, 0

    def pump(self, now: float, room: int | None) -> None:
        """Hand over what waits, as far as the window goes; after a refusal one message, to see."""
        if self._rewind:
            if self._under_way or now < self._held_until:
                return
            self._rewind, self._last_row = False, 0
        window = 1 if self._refused_in_row else IN_FLIGHT
        while len(self._under_way) < window:
            waiting = self._outbox.pending(self._last_row, window - len(self._under_way))
            if not waiting:
                return
            for row, body in waiting:
                if not self._hand_over(row, body, room):
                    return

    def taken(self, event: Acknowledged, *, must_be_heard: bool, now: float) -> bool:
        """Take in an acknowledgement; return whether it was of ours. A message that nobody is subscribed to is kept if
        it `must_be_heard`."""
        row = self._under_way.pop(event.number, None)
        if row is None:
            return False
        if event.unheard and must_be_heard and self._unheard < UNHEARD_TRIES:
            self._unheard += not self._rewind
            self._news(self._refusals.refuse("telemetry", "nobody is subscribed to it", "kept, and tried again later"))
            self._hold(now)
            return True
        self._refused_in_row = 0
        self._outbox.acknowledge(row)
        self._news(self._refusals.take("telemetry"))
        return True

    def refused(self, event: Refused, now: float) -> bool:
        """Keep a message of ours that may be taken later, and wait; name one that never will be. Return whether it was
        of ours."""
        row = self._under_way.pop(event.number, None)
        if row is None:
            return False
        if (event.code in NEVER or self._often_unsaid(row, event.code)) and self._outbox.give_up(row, self._date()):
            self._news(self._refusals.refuse("telemetry", event.reason, "named in a tombstone"))
            return True
        self._news(self._refusals.refuse("telemetry", event.reason, "kept, and tried again later"))
        self._hold(now)
        return True

    def _hold(self, now: float) -> None:
        if not self._rewind:
            self._rewind = True
            self._held_until = now + doubling(self._refused_in_row, base_s=REFUSED_S[0], cap_s=REFUSED_S[1])
            self._refused_in_row += 1

    def _often_unsaid(self, row: int, code: int) -> bool:
        if code not in UNSAID:
            return False
        known, times = self._unsaid
        self._unsaid = (row, times + 1 if known == row else 1)
        return self._unsaid[1] >= UNSAID_TRIES

    def _hand_over(self, row: int, body: bytes, room: int | None) -> bool:
        """Hand a message to the link, in as many bytes as the broker takes; return whether to go on."""
        if room is not None and len(body) > room:
            short = shorten_telemetry(body, room)
            outcome = "sent without its details" if short is not None else "named in a tombstone"
            self._news(self._refusals.refuse("long telemetry", f"over the {room} bytes it takes", outcome))
            if short is None and self._outbox.give_up(row, self._date()):
                self._last_row = row
                return True
            body = short or body
        number = self._publish(body)
        if number is None:
            return False
        self._under_way[number] = row
        self._last_row = row
        return True
