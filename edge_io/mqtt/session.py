"""One connection to a broker, from CONNECT to its end, on one thread. Connecting again is `edge_io.mqtt.link`.

paho-mqtt is driven from outside (its `loop_read`, `loop_write`, `loop_misc`), so that whatever a callback raises ends
here, at one place, and never a thread that nobody watches.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from msgspec import Struct

from edge_io.mqtt.lean_paho import PacketTypes, Properties, paho, speak_tls
from edge_io.mqtt.paho_answers import (
    code_of,
    disconnect_code,
    limits_of,
    properties_in,
    puback_code,
    reason_text,
    suback_codes,
)
from edge_io.mqtt.unacknowledged import ACKNOWLEDGE_S, Unacknowledged
from edge_io.mqtt.words import (
    FAILURE,
    HEADER_BYTES,
    NOBODY_SUBSCRIBED,
    PACKET_TOO_LARGE,
    SESSION_TAKEN_OVER,
    SHARED_PREFIX,
    TOPIC_INVALID,
    WILDCARDS_NOT_SUPPORTED,
    Acknowledged,
    BrokerLimits,
    Connected,
    Disconnected,
    Granted,
    LinkEvent,
    MessageReceived,
    Refused,
    RefusedSubscription,
    Subscription,
    Will,
)

HANDSHAKE_S = 10.0
"""How long a broker may take from the TCP connection to its CONNACK and SUBACKs before it is taken for silent."""

IN_FLIGHT = 20
"""Messages of QoS 1 under way at most; more wait here. Brokers that say less in CONNACK get less."""

UNWRITTEN = 500
"""Messages that a broker may send before their owner has acknowledged one, where it does so by itself."""

PACKET_OVERHEAD_BYTES = 70_000
"""What an MQTT packet may hold besides its payload: a topic of 65,535 bytes, properties and the header."""

PAUSE_S = 5.0
"""A turn that comes so late means that this process did not run (host paused, machine asleep)."""

RESUBSCRIBE_S = 300.0
"""After how many seconds a refused subscription is asked for again: rights are corrected at a broker while we are
connected to it, and it does not tell."""

GOODBYE_S = 0.5
"""How long the broker may take to close after our goodbye."""

_log = logging.getLogger(__name__)


class LinkSettings(Struct, frozen=True, kw_only=True):
    """Where the broker is, who we are to it, and what we want of it. Files are read at every connection.

    `tls` makes the context of a connection and may raise SettingsError; None: no TLS. Messages over `max_bytes` are
    dropped, by the broker already where it speaks MQTT 5. With `session_s` the broker keeps a session for so long while
    we are away, and the owner acknowledges each message by itself.
    """

    host: str
    port: int
    client_id: str
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    username: str | None = None
    password_file: str | None = None
    tls: Callable[[], Any] | None = None
    keepalive_s: int = 30
    subscriptions: tuple[Subscription, ...] = ()
    will: Will | None = None
    max_bytes: int | None = None
    session_s: int = 0
    handshake_s: float = HANDSHAKE_S


class Manner(Struct, frozen=True, kw_only=True):
    """How this connection is tried: the version, and whether the broker may be asked to retain the Will."""

    version5: bool = True
    retained_will: bool = True


class Outgoing(Struct, frozen=True, kw_only=True):
    """A message to send, known to its sender by `number`."""

    number: int
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    correlation: bytes | None = None


class SettingsError(ValueError):
    """A file or a setting of the connection cannot be used; says which and why."""


class BrokerSession:
    """See the module. `stage` goes from opening over greeted (CONNACK) to ready (all SUBACKs), and to ended."""

    def __init__(self, settings: LinkSettings, manner: Manner, tell: Callable[[LinkEvent], None]) -> None:
        self.stage: Literal["opening", "greeted", "ready", "ended"] = "opening"
        self.limits = BrokerLimits()
        self.refusal_code: int | None = None
        self._settings = settings
        self._manner = manner
        self._tell = tell
        self._unacknowledged = Unacknowledged(IN_FLIGHT)
        self._unconfirmed: dict[int, Subscription] = {}
        self._refused: dict[str, RefusedSubscription] = {}
        self._denied: dict[str, Subscription] = {}  # of those, what the broker answered so
        self._ask_at: float | None = None
        self._ending = Disconnected(reason="connection lost")
        self._complaint = ""
        self._deadline = self._turn = 0.0
        self._client = self._new_client()

    @property
    def socket(self) -> Any:
        """The socket to wait on, None once the connection has ended."""
        return None if self.stage == "ended" else self._client.socket()

    @property
    def wants_write(self) -> bool:
        return bool(self._client.want_write())

    @property
    def room(self) -> bool:
        """Whether a message of QoS 1 may be sent now."""
        return self.stage == "ready" and not self._unacknowledged.full

    @property
    def idle(self) -> bool:
        """Whether everything that was sent has left, and has been acknowledged where that was asked for."""
        return not len(self._unacknowledged) and not self.wants_write

    @property
    def accepted(self) -> bool:
        return self.stage in ("greeted", "ready")

    @property
    def ending(self) -> Disconnected:
        """Why the connection ended, once it has."""
        return self._ending

    def open(self, now: float) -> None:
        """Connect and send CONNECT. Raises OSError when there is nobody, ValueError for what cannot be sent."""
        settings, options = self._settings, {}
        if self._manner.version5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            if settings.max_bytes is not None:
                properties.MaximumPacketSize = settings.max_bytes + PACKET_OVERHEAD_BYTES
            if settings.session_s:
                properties.SessionExpiryInterval = settings.session_s
                properties.ReceiveMaximum = UNWRITTEN
            options = {"properties": properties, "clean_start": not settings.session_s}
        self._client.connect(settings.host, settings.port, settings.keepalive_s, **options)
        stream = self._client.socket()
        if isinstance(stream, socket.socket):
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._deadline, self._turn = now + settings.handshake_s, now

    def process(self, readable: bool, now: float) -> None:
        """Read what came, write what waits, and look at what is due; on return the connection may have ended."""
        if now - self._turn > PAUSE_S:
            self._unacknowledged.paused(now - self._turn)
            self._deadline += now - self._turn
        self._turn = now
        try:
            code = self._client.loop_read() if readable else 0
            if not code and self._client.want_write():
                code = self._client.loop_write()
            if not code:
                code = self._client.loop_misc()
        except Exception as error:  # whatever a packet made paho raise; the connection cannot go on behind it
            _log.warning("the broker sent what cannot be read: %s", error)
            self.end(Disconnected(reason=f"the broker sent what cannot be read: {error}"))
            return
        if code or self._client.socket() is None:
            self.end(self._ending)
            return
        self._look(now)

    def send(self, message: Outgoing, now: float) -> None:
        """Send a message; what the broker would not take is refused at once. Of retain and QoS it gets what it can."""
        refusal, qos, packet = self._too_large(message), min(message.qos, self.limits.max_qos), 0
        if refusal is None:
            try:
                packet = self._hand_over(message, qos)
            except ValueError as error:
                refusal = TOPIC_INVALID, f"cannot be sent: {error}"
        if refusal is not None:
            code, reason = refusal
            self._tell(Refused(number=message.number, topic=message.topic, code=code, reason=reason))
            return
        if qos:
            self._unacknowledged.add(packet, message.number, message.topic, now)
        else:
            self._tell(Acknowledged(number=message.number))

    def leave(self) -> None:
        """Say goodbye: the broker does not publish the Will. What it still sends is read away, because closing before
        that resets the connection, and the goodbye may be lost with it."""
        with socket.socket(fileno=os.dup(self._client.socket().fileno())) as stream:
            self._client.disconnect()
            if self.wants_write:
                self._client.loop_write()
            self.end(Disconnected(reason="ended here"))
            _read_away(stream)

    def end(self, ending: Disconnected) -> None:
        """Take note that the connection is gone, for `ending`."""
        if self.stage == "ended":
            return
        if not self.accepted and ending.ending == "lost":
            text = "the broker did not accept the connection"
            ending = Disconnected(
                reason=f"{text}: {self._complaint}" if self._complaint else text,
                ending="tls" if "ALERT" in self._complaint else "silent",
            )
        elif self._complaint and ending.code is None:
            ending = Disconnected(reason=f"{ending.reason}: {self._complaint}", ending=ending.ending)
        self._ending, self.stage = ending, "ended"
        stream = self._client.socket()
        if stream is not None:
            stream.close()

    def _too_large(self, message: Outgoing) -> tuple[int, str] | None:
        room = self.limits.max_packet_bytes
        size = HEADER_BYTES + len(message.topic.encode()) + len(message.payload) + len(message.correlation or b"")
        if room is None or size <= room:
            return None
        return PACKET_TOO_LARGE, f"Packet too large: {size} bytes, the broker takes {room}"

    def _hand_over(self, message: Outgoing, qos: int) -> int:
        """Return the packet identifier that paho sent the message with. Raises ValueError."""
        properties = None
        if message.correlation is not None and self._manner.version5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = message.correlation
        retain = message.retain and self.limits.retain
        info = self._client.publish(message.topic, message.payload, qos=qos, retain=retain, properties=properties)
        return int(info.mid)

    def _look(self, now: float) -> None:
        if self.stage != "ready":
            if now > self._deadline:
                what = "CONNACK" if self.stage == "opening" else "SUBACK"
                reason = f"no {what} from the broker within {self._settings.handshake_s:g} s"
                self.end(Disconnected(reason=reason, ending="silent"))
            return
        if self._denied:
            self._ask_again(now)
        if len(self._unacknowledged):
            leaving = self.wants_write or _bytes_leaving(self._client.socket()) > 0
            self._unacknowledged.look(leaving=leaving, now=now)
        missing = self._unacknowledged.missing(now)
        if missing is not None:
            self._client.disconnect()
            reason = f"the broker did not acknowledge a message on {missing.topic} within {ACKNOWLEDGE_S:g} s"
            self.end(Disconnected(reason=reason))

    def _new_client(self) -> Any:
        settings = self._settings
        options: dict[str, Any] = {
            "client_id": settings.client_id,
            "protocol": paho.MQTTv5 if self._manner.version5 else paho.MQTTv311,
            "reconnect_on_failure": False,
            "manual_ack": bool(settings.session_s),
        }
        if not self._manner.version5:
            options["clean_session"] = not settings.session_s
        if hasattr(paho, "CallbackAPIVersion"):  # paho-mqtt 2; Debian 12 has 1.6
            options["callback_api_version"] = paho.CallbackAPIVersion.VERSION2
        else:
            del options["manual_ack"]
        client: Any = paho.Client(**options)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_message, client.on_publish = self._on_message, self._on_publish
        client.on_subscribe, client.on_log = self._on_subscribe, self._on_log
        if settings.will is not None:
            retained = self._manner.retained_will
            client.will_set(settings.will.topic, settings.will.payload, qos=int(retained), retain=retained)
        if settings.username is not None:
            client.username_pw_set(settings.username, _password(settings.password_file))
        if settings.tls is not None:
            speak_tls()
            client.tls_set_context(settings.tls())
        return client

    # paho 1.6 and 2 differ in what follows the arguments named here.
    def _on_connect(self, client: Any, _data: object, _flags: object, answer: Any, *more: Any) -> None:
        code = code_of(answer)
        if code:
            self.refusal_code = code
            text = reason_text(code, properties_in(more))
            reason = f"the broker did not accept the connection: {text}"
            self._ending = Disconnected(reason=reason, ending="refused", code=code)
            client.disconnect()
            self.end(self._ending)
            return
        self.stage, self._complaint = "greeted", ""
        self.limits = limits_of(more[0] if more else None)
        self._unacknowledged.limit = min(IN_FLIGHT, self.limits.receive_maximum)
        for subscription in self._settings.subscriptions:
            self._subscribe(client, subscription)
        self._when_ready()

    def _subscribe(self, client: Any, subscription: Subscription) -> None:
        """Ask for what the broker can do; asking for more ends the connection (MQTT 5, section 3.2.2.3)."""
        topic, limits = subscription.topic, self.limits
        if topic.startswith(SHARED_PREFIX) and not limits.shared_subscriptions:
            topic = topic.split("/", 2)[2]
        if ("+" in topic or "#" in topic) and not limits.wildcard_subscriptions:
            self._refuse(subscription, reason_text(WILDCARDS_NOT_SUPPORTED))
            return
        _, packet = client.subscribe(topic, min(subscription.qos, limits.max_qos))
        if packet is not None:
            self._unconfirmed[packet] = subscription

    def _refuse(self, subscription: Subscription, reason: str) -> None:
        self._refused[subscription.topic] = RefusedSubscription(topic=subscription.topic, reason=reason)

    def _ask_again(self, now: float) -> None:
        """Ask for what was refused once more, from time to time."""
        if self._ask_at is None:
            self._ask_at = now + RESUBSCRIBE_S
        elif now >= self._ask_at:
            self._ask_at = now + RESUBSCRIBE_S
            self._unconfirmed.clear()
            for subscription in self._denied.values():
                self._subscribe(self._client, subscription)

    def _on_subscribe(self, _client: object, _data: object, packet: int, answers: Any, *more: Any) -> None:
        subscription = self._unconfirmed.pop(packet, None)
        if subscription is None:
            return
        refusals = [code for code in suback_codes(answers) if code >= FAILURE]
        for code in refusals:
            self._refuse(subscription, reason_text(code, properties_in(more)))
            self._denied[subscription.topic] = subscription
        if not refusals and self._denied.pop(subscription.topic, None) is not None:
            self._refused.pop(subscription.topic, None)
            self._tell(Granted(topic=subscription.topic, left=tuple(self._refused.values())))
        self._when_ready()

    def _when_ready(self) -> None:
        if not self._unconfirmed and self.stage == "greeted":
            self.stage = "ready"
            self._tell(Connected(limits=self.limits, refused=tuple(self._refused.values())))

    def _on_log(self, _client: object, _data: object, level: int, text: str) -> None:
        # A broker that refuses a certificate says so in a TLS alert, which paho tells its log only, and not every time.
        if level == paho.MQTT_LOG_ERR and "ALERT" in text:
            self._complaint = text

    def _on_disconnect(self, _client: object, _data: object, *arguments: Any) -> None:
        code = disconnect_code(arguments)
        if code is None or self.stage == "ended":
            return
        text = reason_text(code, properties_in(arguments))
        if code == SESSION_TAKEN_OVER:
            reason = f"another client has connected with this client's id, {self._settings.client_id}"
            self._ending = Disconnected(reason=f"{reason}: {text}", ending="taken-over", code=code)
        else:
            self._ending = Disconnected(reason=f"the broker ended the connection: {text}", code=code)

    def _on_message(self, client: Any, _data: object, message: Any) -> None:
        by_owner = self._settings.session_s and hasattr(client, "ack")  # paho 1.6 acknowledges by itself
        acknowledge = partial(client.ack, message.mid, message.qos) if by_owner else None
        try:
            limit = self._settings.max_bytes
            if limit is None or len(message.payload) <= limit:
                self._tell(_received(message, acknowledge))
                return
            _log.warning("a message on %s is dropped: %d bytes, over %d", message.topic, len(message.payload), limit)
        except UnicodeDecodeError as error:
            _log.warning("a message is dropped, its topic is not UTF-8: %.200r", error.object)
        except Exception as error:  # whatever the owner did not expect of a message
            _log.warning("a message is dropped, it cannot be handled: %r", error, exc_info=True)
        if acknowledge is not None:
            acknowledge()  # or the broker sends it again for ever

    def _on_publish(self, _client: object, _data: object, packet: int, *arguments: Any) -> None:
        sent = self._unacknowledged.take(packet)
        if sent is None:
            return
        code = puback_code(arguments)
        if code >= FAILURE:
            reason = reason_text(code, properties_in(arguments))
            self._tell(Refused(number=sent.number, topic=sent.topic, code=code, reason=reason))
        else:
            self._tell(Acknowledged(number=sent.number, unheard=code == NOBODY_SUBSCRIBED))


def _received(message: Any, acknowledge: Callable[[], object] | None) -> MessageReceived:
    """Return paho's message as ours. Raises UnicodeDecodeError for a topic that is not UTF-8."""
    properties = getattr(message, "properties", None)
    return MessageReceived(
        topic=str(message.topic),
        payload=bytes(message.payload),
        retained=bool(message.retain),
        response_topic=getattr(properties, "ResponseTopic", None),
        correlation=getattr(properties, "CorrelationData", None),
        acknowledge=acknowledge,
    )


def _read_away(stream: socket.socket) -> None:
    """Read until the broker has closed, too; at most `GOODBYE_S`."""
    until = time.monotonic() + GOODBYE_S
    with suppress(OSError):
        stream.shutdown(socket.SHUT_WR)
        while (left := until - time.monotonic()) > 0:
            stream.settimeout(left)
            if not stream.recv(65_536):
                return


def _bytes_leaving(stream: Any) -> int:
    """Return the bytes that the other machine has not confirmed to have received; 0 where that cannot be known."""
    try:
        answer = fcntl.ioctl(stream.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError, AttributeError):
        return 0
    return int(struct.unpack("i", answer)[0])


def _password(path: str | None) -> str | None:
    """Return what the file holds, without the end of its line. Raises SettingsError."""
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - the path is a setting, as it was written
            return file.read().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"password_file cannot be read: {error}") from error
