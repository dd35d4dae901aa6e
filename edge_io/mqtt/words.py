"""What a link says to its owner, and what the broker said about its own limits. Pure records.

Reason codes are MQTT 5's (section 2.4). A broker with 3.1.1 has no word for most of what is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

FAILURE = 0x80
"""Reason codes from here on are failures (MQTT 5, section 2.4)."""

NOBODY_SUBSCRIBED = 0x10
"""A PUBACK's word that the message was taken and reached nobody. No failure."""

TOPIC_INVALID, PACKET_TOO_LARGE, PAYLOAD_INVALID = 0x90, 0x95, 0x99
SESSION_TAKEN_OVER = 0x8E
WILDCARDS_NOT_SUPPORTED = 0xA2
UNSUPPORTED_VERSION, RETAIN_NOT_SUPPORTED, QOS_NOT_SUPPORTED = 0x84, 0x9A, 0x9B

UNAUTHORIZED = frozenset({0x86, 0x87, 0x8A, 0x8C})
"""Bad user name or password, not authorized, banned, bad authentication method."""

SHARED_PREFIX = "$share/"

Ending = Literal["unreachable", "settings", "tls", "refused", "silent", "lost", "taken-over"]
"""Why there is no connection: no TCP connection; files or settings that cannot be used; TLS said no; the broker's
CONNACK said no; no CONNACK or SUBACK in time; an accepted connection ended; another client has the same client id."""


class BrokerLimits(Struct, frozen=True, kw_only=True):
    """What the broker's CONNACK said of itself (MQTT 5, section 3.2.2.3); the defaults are the standard's. `session_s`
    is how long it keeps a session, where that is not what was asked for."""

    max_packet_bytes: int | None = None
    receive_maximum: int = 65_535
    max_qos: int = 2
    retain: bool = True
    shared_subscriptions: bool = True
    wildcard_subscriptions: bool = True
    keepalive_s: int | None = None
    session_s: int | None = None

    def payload_room(self, topic: str) -> int | None:
        """Return how many bytes a payload on `topic` may have, None without a limit."""
        if self.max_packet_bytes is None:
            return None
        return max(0, self.max_packet_bytes - HEADER_BYTES - len(topic.encode()))


HEADER_BYTES = 16
"""What a PUBLISH has besides topic, payload and correlation data at most: fixed header 5, length of the topic 2, packet
identifier 2, length of properties and of the correlation data 4, and some to spare."""


class Subscription(Struct, frozen=True, kw_only=True):
    """A topic filter to listen to."""

    topic: str
    qos: int = 0


class RefusedSubscription(Struct, frozen=True, kw_only=True):
    """A topic filter that the broker does not let us listen to, and its reason."""

    topic: str
    reason: str


class Will(Struct, frozen=True, kw_only=True):
    """What the broker publishes, retained, when the client goes without a goodbye."""

    topic: str
    payload: bytes


class Connected(Struct, frozen=True, kw_only=True):
    """Connected, and the broker has answered every subscription. `refused` are those it does not grant."""

    limits: BrokerLimits = BrokerLimits()
    refused: tuple[RefusedSubscription, ...] = ()


class Granted(Struct, frozen=True, kw_only=True):
    """The broker lets us listen to a topic filter now that it had refused on this connection; `left` are those that it
    still refuses."""

    topic: str
    left: tuple[RefusedSubscription, ...] = ()


class Disconnected(Struct, frozen=True, kw_only=True):
    """The connection is gone or was not made. `code` is the broker's reason code where it gave one."""

    reason: str
    ending: Ending = "lost"
    code: int | None = None


class MessageReceived(Struct, frozen=True, kw_only=True):
    """A message on a subscribed topic. `retained`: it was published before we subscribed. `response_topic` and
    `correlation` are MQTT 5's: where its sender wants an answer, and by what it will know the answer. `acknowledge`
    is there on links whose owner acknowledges by itself; on a connection that is gone it does nothing."""

    topic: str
    payload: bytes
    retained: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None
    acknowledge: Callable[[], object] | None = None


class Acknowledged(Struct, frozen=True, kw_only=True):
    """The broker has taken the message of that number. `unheard`: it says that nobody is subscribed to the topic."""

    number: int
    unheard: bool = False


class Refused(Struct, frozen=True, kw_only=True):
    """The broker has not taken the message of that number, and will not; or it was not sent, because its CONNACK said
    that it would not be taken."""

    number: int
    topic: str
    code: int
    reason: str


LinkEvent = Connected | Granted | Disconnected | MessageReceived | Acknowledged | Refused
