"""A simulated device's connection to the broker: real, on `edge_io.mqtt.session` as the agent's; worse if the scenario
says so. What is lost are questions to a depot and answers, which travel with QoS 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edge_io.mqtt.session import BrokerSession, LinkSettings, Manner, Outgoing
from edge_io.mqtt.words import (
    Acknowledged,
    Connected,
    LinkEvent,
    MessageReceived,
    Refused,
    Subscription,
    Will,
)

KEEPALIVE_S = 240
"""Seconds between pings: a simulated device has little else to do."""

HANDSHAKE_S = 60.0
"""How long the broker may take to accept a device: thousands come at once, on one machine."""

MAX_WAITING = 1000
"""Messages that wait for the broker's window; more are dropped, as by the agent's link."""


@dataclass(kw_only=True)
class Traffic:
    """MQTT packets in bytes and application messages, of all devices of a process."""

    bytes_in: int = 0
    bytes_out: int = 0
    messages_in: int = 0
    messages_out: int = 0

    def sent(self, message: Outgoing) -> None:
        """Count a PUBLISH and, with QoS 1, its PUBACK."""
        self.bytes_out += packet_bytes(message.topic, message.payload, message.qos)
        self.bytes_in += 4 if message.qos else 0
        self.messages_out += 1

    def received(self, message: MessageReceived, qos: int) -> None:
        """The same for a message that came."""
        self.bytes_in += packet_bytes(message.topic, message.payload, qos)
        self.bytes_out += 4 if qos else 0
        self.messages_in += 1


def packet_bytes(topic: str, payload: bytes, qos: int) -> int:
    """Return the size of a PUBLISH packet without properties (MQTT 3.1.1, section 3.3)."""
    rest = 2 + len(topic.encode()) + (2 if qos else 0) + len(payload)
    length_bytes = 1 if rest < 128 else 2 if rest < 16_384 else 3 if rest < 2_097_152 else 4
    return 1 + length_bytes + rest


@dataclass(kw_only=True)
class DeviceLink:
    """One connection after the other of one device. `arrived` gets messages, `ready` and `ended` the connection's
    turns. `changed` is told that the sockets to wait for have changed."""

    host: str
    port: int
    protocol: str
    client_id: str
    subscriptions: tuple[tuple[str, int], ...]
    will: Callable[[], tuple[str, bytes]]
    traffic: Traffic
    arrived: Callable[[MessageReceived], None]
    ready: Callable[[], None]
    ended: Callable[[], None]
    session: BrokerSession | None = None
    _number: int = 0
    _waiting: list[Outgoing] = field(default_factory=list)

    def open(self, now: float) -> None:
        """Connect. Raises OSError when there is nobody."""
        topic, payload = self.will()
        settings = LinkSettings(
            host=self.host,
            port=self.port,
            client_id=self.client_id,
            keepalive_s=KEEPALIVE_S,
            subscriptions=tuple(Subscription(topic=name, qos=qos) for name, qos in self.subscriptions),
            will=Will(topic=topic, payload=payload),
            handshake_s=HANDSHAKE_S,
        )
        session = BrokerSession(settings, Manner(version5=self.protocol != "3.1.1"), self._hear)
        session.open(now)
        self.session = session

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool, now: float) -> None:
        """Send a message, or drop it where there is no connection."""
        session = self.session
        if session is None or session.stage != "ready":
            return
        self._number += 1
        message = Outgoing(number=self._number, topic=topic, payload=payload, qos=qos, retain=retain)
        if qos and (self._waiting or not session.room):
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append(message)
            return
        self._send(session, message, now)

    def process(self, readable: bool, now: float) -> None:
        """Read and write what is due."""
        session = self.session
        if session is None:
            return
        session.process(readable, now)
        while self._waiting and session.stage == "ready" and session.room:
            self._send(session, self._waiting.pop(0), now)
        if session.stage == "ended":
            self._gone()

    def cut(self) -> None:
        """Lose the connection without a goodbye, as with the power or the network."""
        session = self.session
        if session is not None and session.socket is not None:
            session.socket.close()
        self._gone()

    def leave(self) -> None:
        """Say goodbye: the broker does not publish the Will."""
        if self.session is not None and self.session.socket is not None:
            self.session.leave()
        self.session = None

    def _send(self, session: BrokerSession, message: Outgoing, now: float) -> None:
        self.traffic.sent(message)
        session.send(message, now)

    def _gone(self) -> None:
        if self.session is not None:
            self.session = None
            self._waiting.clear()
            self.ended()

    def _hear(self, event: LinkEvent) -> None:
        if isinstance(event, MessageReceived):
            self.arrived(event)
        elif isinstance(event, Connected):
            self.ready()
        elif isinstance(event, Acknowledged | Refused):
            return
