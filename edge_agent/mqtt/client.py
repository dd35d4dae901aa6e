"""The device's connection to the broker: connect, stay connected, subscribe again, say what happens.

paho-mqtt 2 and Debian's 1.6, MQTT 5 with a fallback to 3.1.1. What travels over it is decided elsewhere: telemetry in
`edge_agent.telemetry.uplink`, requests for update bytes in `edge_agent.updater.transports`.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from edge_agent.backoff import full_jitter
from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.errors import ConfigError
from edge_agent.mqtt.lean_paho import PacketTypes, Properties, paho, speak_tls
from edge_contracts.limits import MAX_ENVELOPE_BYTES

RECONNECT_BASE_S = 1.0
RECONNECT_CAP_S = 60.0
"""Waits between attempts, with full jitter: a fleet must not come back to its broker all in one second."""

HANDSHAKE_S = 10.0
"""How long a broker may take from the TCP connection to its CONNACK before it is taken for silent."""

REFUSAL_S = 2.0
"""How long a broker that closed without a word is listened to for its reason."""

PACKET_OVERHEAD_BYTES = 70_000
"""What an MQTT packet may hold besides its payload: a topic of 65,535 bytes, properties and the header."""

_log = logging.getLogger(__name__)
_random = random.SystemRandom()


class Connected(Struct, frozen=True):
    """Connected and subscribed."""


class Disconnected(Struct, frozen=True):
    """The connection is gone or was not made."""

    reason: str


class MessageReceived(Struct, frozen=True):
    """A message on a subscribed topic. `retained`: it was published before we subscribed. The last two are MQTT 5's:
    where its sender wants an answer, and by what it will know the answer."""

    topic: str
    payload: bytes
    retained: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None


class Acknowledged(Struct, frozen=True):
    """The broker has taken the QoS 1 message of that number."""

    number: int


LinkEvent = Connected | Disconnected | MessageReceived | Acknowledged


class Will(Struct, frozen=True, kw_only=True):
    """What the broker publishes, retained, when the device goes without a goodbye."""

    topic: str
    payload: bytes


class MqttLink:
    """One connection in threads of its own. Events come on those threads; the receiver hands them on quickly."""

    def __init__(
        self,
        settings: BrokerConfig,
        client_id: str,
        subscriptions: tuple[tuple[str, int], ...],
        tell: Callable[[LinkEvent], None],
        will: Will | None = None,
        max_bytes: int = MAX_ENVELOPE_BYTES,
    ) -> None:
        """`subscriptions` are (topic filter, QoS), made again at every connection. Files are read at every connection,
        too; one that cannot be used is told as `Disconnected`, because the device must serve without its broker.
        Messages over `max_bytes` are dropped, by the broker already where it speaks MQTT 5."""
        self._settings = settings
        self._client_id = client_id
        self._subscriptions = subscriptions
        self._tell = tell
        self._will = will
        self._max_bytes = max_bytes
        self._version5 = settings.protocol != "3.1.1"
        self._greeted = False
        self._stopped = False
        self._complaint = ""
        self._wake = threading.Event()
        self._up = threading.Event()
        self._down = threading.Event()
        self._client: Any = None
        self._thread = threading.Thread(target=self._run, name=f"mqtt-{client_id}", daemon=True)

    @property
    def connected(self) -> bool:
        return self._up.is_set()

    def start(self) -> None:
        self._thread.start()

    def wait_connected(self, timeout_s: float) -> bool:
        """Return whether the connection stands, after waiting at most `timeout_s` seconds for it."""
        return self._up.wait(timeout_s)

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, correlation: bytes | None = None
    ) -> int | None:
        """Hand over a message; return its number, or None without a connection. A message of QoS 1 has arrived once
        `Acknowledged` comes with its number; after `Disconnected` no number of before counts any more. `correlation`
        travels on MQTT 5 only."""
        if not self.connected:
            return None
        properties = None
        if correlation is not None and self._version5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = correlation
        info = self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        return int(info.mid) if info.rc == paho.MQTT_ERR_SUCCESS else None

    def stop(self) -> None:
        """Say goodbye and end the threads. What was published before has been written out first."""
        self._stopped = True
        self.reconnect()
        if self._thread.is_alive():
            self._down.set()
            self._thread.join(HANDSHAKE_S)

    def reconnect(self) -> None:
        """Connect anew, and at once: the identity has changed."""
        client = self._client
        if client is not None:
            client.disconnect()
        self._wake.set()

    def _run(self) -> None:
        attempt = 0
        while not self._stopped:
            if self._once():
                attempt = 0
            delay = full_jitter(attempt, _random.random(), base_s=RECONNECT_BASE_S, cap_s=RECONNECT_CAP_S)
            attempt += 1
            if self._wake.wait(delay):
                self._wake.clear()
                attempt = 0
        self._client = None  # its sockets close with it

    def _once(self) -> bool:
        """Connect and stay until the connection ends; return whether the broker had accepted us."""
        self._down.clear()
        try:
            # A new client each time: what an old one still had to send is its user's to send again.
            self._client = self._new_client()
            self._connect()
        except (OSError, ValueError, ConfigError) as error:
            self._tell(Disconnected(f"no connection: {error}"))
            return False
        self._client.loop_start()
        accepted = self._wait_for_greeting()
        if accepted:
            self._down.wait()
        self._client.loop_stop()
        self._up.clear()
        reason = "connection lost" if accepted else "the broker did not accept the connection"
        if not accepted and not self._complaint and self._settings.tls:
            from edge_agent.mqtt.tls import tls_refusal

            self._complaint = tls_refusal(self._settings, time.time(), REFUSAL_S)
        self._tell(Disconnected(f"{reason}: {self._complaint}" if self._complaint else reason))
        if not accepted and not self._greeted and self._settings.protocol == "auto":
            self._version5 = not self._version5
        return accepted

    def _connect(self) -> None:
        properties = None
        if self._version5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = self._max_bytes + PACKET_OVERHEAD_BYTES
        settings = self._settings
        self._client.connect(settings.host, settings.port, settings.keepalive_s, properties=properties)

    def _wait_for_greeting(self) -> bool:
        # Whichever comes first: CONNACK sets _up, a closed connection sets _down.
        waited = 0.0
        while not self._up.is_set() and not self._down.is_set() and waited < HANDSHAKE_S:
            self._up.wait(0.05)
            waited += 0.05
        return self._up.is_set()

    def _new_client(self) -> Any:
        settings = self._settings
        options: dict[str, Any] = {
            "client_id": self._client_id,
            "protocol": paho.MQTTv5 if self._version5 else paho.MQTTv311,
            "reconnect_on_failure": False,
        }
        if not self._version5:
            options["clean_session"] = True
        if hasattr(paho, "CallbackAPIVersion"):  # paho-mqtt 2; Debian 12 has 1.6
            options["callback_api_version"] = paho.CallbackAPIVersion.VERSION2
        client: Any = paho.Client(**options)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_message, client.on_publish = self._on_message, self._on_publish
        client.on_log = self._on_log
        if self._will is not None:
            client.will_set(self._will.topic, self._will.payload, qos=1, retain=True)
        if settings.username is not None:
            client.username_pw_set(settings.username, _secret(settings.password_file))
        if settings.tls:
            from edge_agent.mqtt.tls import tls_context

            speak_tls()
            client.tls_set_context(tls_context(settings, time.time()))
        return client

    # paho 1.6 and 2 differ in what follows the arguments named here.
    def _on_connect(self, client: Any, _userdata: object, _flags: object, code: Any, *_: object) -> None:
        if code != 0:
            _log.warning("broker refused the connection: %s", code)
            self._complaint = str(code)
            self._down.set()
            return
        self._greeted = True
        self._complaint = ""
        for topic, qos in self._subscriptions:
            client.subscribe(topic, qos)
        self._up.set()
        self._tell(Connected())

    def _on_log(self, _client: object, _userdata: object, level: int, text: str) -> None:
        # A broker that refuses a certificate says so in a TLS alert, which paho tells its log only, and not every time.
        if level == paho.MQTT_LOG_ERR and "ALERT" in text:
            self._complaint = text

    def _on_disconnect(self, *_: object) -> None:
        self._down.set()

    def _on_message(self, _client: object, _userdata: object, message: Any) -> None:
        if len(message.payload) > self._max_bytes:
            return
        properties = getattr(message, "properties", None)
        self._tell(
            MessageReceived(
                topic=str(message.topic),
                payload=bytes(message.payload),
                retained=bool(message.retain),
                response_topic=getattr(properties, "ResponseTopic", None),
                correlation=getattr(properties, "CorrelationData", None),
            )
        )

    def _on_publish(self, _client: object, _userdata: object, number: int, *_: object) -> None:
        self._tell(Acknowledged(number))


def _secret(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", subject="config.broker.password_file") from error
