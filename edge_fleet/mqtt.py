"""A steady connection to a broker for depot and controller: MQTT 5, else 3.1.1, reconnecting, one thread.

The owner's work runs between network steps in the same thread, so nothing here or there needs a lock. What the
messages mean is elsewhere. A device's own connection is in `edge_agent.mqtt.client`.
"""

from __future__ import annotations

import random
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_contracts.codec import StrictRecord
from edge_fleet.errors import BrokerError, FleetError

HANDSHAKE_S = 4.0
"""A broker that does not know MQTT 5 may just keep silent; after this the other version is tried."""

BACKOFF_S = (0.05, 0.5)
"""First and longest wait between attempts, with full jitter. Far shorter than a device's: we are few, and what a
device publishes to a broker that has no session of ours is acknowledged and lost."""

STEP_S = 0.1
"""Longest wait for the network before the owner's work gets its turn; work that is waiting returns a shorter one."""

STEADY_S = 5.0
"""A connection that held for so long counts as a success: the next wait is a first one."""

SESSION_EXPIRY_S = 24 * 3600
"""How long a broker keeps what arrives for a durable client that is away."""

_UNAUTHORIZED = frozenset({"Not authorized", "Bad user name or password", "Banned", "Bad authentication method"})

Protocol = Literal["auto", "5", "3.1.1"]


class Broker(StrictRecord, frozen=True, kw_only=True):
    """Where the broker is and who we are to it."""

    host: str
    port: int = 1883
    protocol: Protocol = "auto"
    username: str | None = None
    password_file: Path | None = None
    tls: bool = False
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: int = 30


class Subscription(StrictRecord, frozen=True, kw_only=True):
    """What to listen to."""

    topic: str
    qos: int = 0


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A message. On a durable link the receiver calls `acknowledge` once it is in safe hands; after a reconnect that
    does nothing, and the broker delivers again."""

    topic: str
    payload: bytes
    acknowledge: Callable[[], object]


class BrokerConnection:
    """One client's connection. `receive` gets every message; `ready` is called after each complete subscription.

    `durable` keeps a session under `client_id` at the broker, and leaves acknowledging to the receiver. The topic
    `announced_at` holds a retained "1" while the subscriptions stand, cleared at the end or by the Last Will.
    """

    def __init__(
        self,
        broker: Broker,
        subscriptions: Sequence[Subscription],
        receive: Callable[[Delivery], None],
        ready: Callable[[], None],
        *,
        client_id: str = "",
        durable: bool = False,
        announced_at: str | None = None,
    ) -> None:
        self._broker = broker
        self._subscriptions = list(subscriptions)
        self._receive = receive
        self._ready = ready
        self._client_id = client_id
        self._durable = durable
        self._announced_at = announced_at
        self._five = broker.protocol != "3.1.1"
        self._client: Client | None = None
        self._connected = False
        self._unconfirmed: set[int] = set()
        self._refusal: BrokerError | None = None
        self._ever_ready = False

    def run(self, work: Callable[[], float], stopped: Callable[[], bool]) -> None:
        """Stay connected and call `work` between network steps, also while there is no broker, until `stopped`.

        `work` returns the seconds after which it wants its next turn (`STEP_S` at most).
        Raises BrokerError if the broker refuses us before the first success; later refusals are retried.
        """
        attempt = 0
        while not stopped():
            started = time.monotonic()
            self._session(work, stopped)
            if time.monotonic() - started > STEADY_S:
                attempt = 0
            if self._refusal is not None and not self._ever_ready:
                raise self._refusal
            pause = random.random() * min(BACKOFF_S[1], BACKOFF_S[0] * 2**attempt)  # noqa: S311
            attempt = min(attempt + 1, 16)
            until = time.monotonic() + pause
            while not stopped() and time.monotonic() < until:
                work()
                time.sleep(STEP_S / 2)

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> bool:
        """Send a message if there is a connection; return whether it left."""
        if self._client is None or not self._connected:
            return False
        return self._client.publish(topic, payload, qos=qos, retain=retain).rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def _session(self, work: Callable[[], float], stopped: Callable[[], bool]) -> None:
        """One connection from start to end. If the broker does not answer, the next one tries the other version."""
        client = self._new_client()
        try:
            self._connect(client)
        except OSError as error:
            if isinstance(error, ssl.SSLError):
                self._refusal = BrokerError(f"TLS: {error}", subject=self._address)
            return
        self._client = client
        self._loop(client, work, stopped)
        if not self._connected and self._broker.protocol == "auto":
            self._five = not self._five
        self._connected = False
        self._client = None
        client.disconnect()

    def _loop(self, client: Client, work: Callable[[], float], stopped: Callable[[], bool]) -> None:
        deadline = time.monotonic() + HANDSHAKE_S
        step = STEP_S
        while not stopped():
            if client.loop(step) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return
            if not self._connected and time.monotonic() > deadline:
                return
            step = min(work(), STEP_S)
        if self._connected:
            self._announce(client, b"")
            client.disconnect()
            client.loop(STEP_S)

    def _connect(self, client: Client) -> None:
        broker = self._broker
        if self._five:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            if self._durable:
                properties.SessionExpiryInterval = SESSION_EXPIRY_S
            client.connect(
                broker.host, broker.port, broker.keepalive_s, clean_start=not self._durable, properties=properties
            )
        else:
            client.connect(broker.host, broker.port, broker.keepalive_s)
        stream = client.socket()
        if isinstance(stream, socket.socket):
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _new_client(self) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=None if self._five else not self._durable,
            protocol=MQTTProtocolVersion.MQTTv5 if self._five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=self._durable,
        )
        broker = self._broker
        if broker.username is not None:
            client.username_pw_set(broker.username, _password(broker))
        if broker.tls or broker.ca_file is not None:
            _set_tls(client, broker)
        if self._announced_at is not None:
            client.will_set(self._announced_at, b"", qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_log = self._on_log
        return client

    def _on_connect(
        self, client: Client, _data: Any, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            if str(reason) in _UNAUTHORIZED:
                self._refusal = BrokerError(f"the broker refuses us: {reason}", subject=self._address)
            return
        self._connected = True
        self._unconfirmed = set()
        for subscription in self._subscriptions:
            _, mid = client.subscribe(subscription.topic, subscription.qos)
            if mid is not None:
                self._unconfirmed.add(mid)

    def _on_subscribe(
        self, client: Client, _data: Any, mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            self._refusal = BrokerError(f"subscription refused: {reasons[0]}", subject=self._address)
            self._connected = False
            return
        self._unconfirmed.discard(mid)
        if not self._unconfirmed:
            self._ever_ready = True
            self._announce(client, b"1")
            self._ready()

    def _on_log(self, _client: Client, _data: Any, level: int, text: str) -> None:
        # A broker that refuses our certificate says so in a TLS alert, which paho tells its log only.
        if level == LogLevel.MQTT_LOG_ERR and "ALERT" in text:
            self._refusal = BrokerError(f"TLS: {text}", subject=self._address)

    def _announce(self, client: Client, word: bytes) -> None:
        if self._announced_at is not None:
            client.publish(self._announced_at, word, qos=1, retain=True)

    def _on_message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        acknowledge = partial(client.ack, message.mid, message.qos)
        self._receive(Delivery(topic=message.topic, payload=bytes(message.payload), acknowledge=acknowledge))

    @property
    def _address(self) -> str:
        return f"{self._broker.host}:{self._broker.port}"


def _set_tls(client: Client, broker: Broker) -> None:
    try:
        client.tls_set(_text(broker.ca_file), _text(broker.certificate_file), _text(broker.key_file))
    except (OSError, ValueError) as error:
        raise FleetError(f"certificates or key cannot be used: {error}", subject="tls") from error


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _password(broker: Broker) -> str | None:
    if broker.password_file is None:
        return None
    try:
        return broker.password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise FleetError(f"cannot be read: {error}", subject=str(broker.password_file)) from error
