"""A fleet service's lasting connection to a broker: one thread, the owner's work between network steps, a refusal
before the first success is an error. The connection itself is `edge_io.mqtt.link`; what messages mean is elsewhere.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edge_contracts.codec import StrictRecord
from edge_fleet.errors import BrokerError, FleetError
from edge_io.addresses import address_text
from edge_io.mqtt.brief_connections import BriefConnections
from edge_io.mqtt.link import BrokerLink
from edge_io.mqtt.session import LinkSettings, SettingsError
from edge_io.mqtt.words import (
    SHARED_PREFIX,
    UNAUTHORIZED,
    BrokerLimits,
    Connected,
    Disconnected,
    Granted,
    LinkEvent,
    MessageReceived,
    Refused,
    Subscription,
    Will,
)

if TYPE_CHECKING:
    import ssl

HANDSHAKE_S = 4.0
"""A broker that does not know MQTT 5 may just keep silent; after this the other version is tried."""

BACKOFF_S = (0.05, 0.5)
"""First and longest wait between attempts, with full jitter. Far shorter than a device's: we are few, and what a
device publishes to a broker that has no session of ours is acknowledged and lost."""

DISPUTE_S = 30.0
"""The longest wait after the broker had taken us and ended the connection soon: another client has our id, or it does
not like what we send."""

REPEAT_S = (10.0, 300.0)
"""When a trouble that lasts is named again: first and longest time, doubled each time."""

STEP_S = 0.1
"""Longest wait for the network before the owner's work gets its turn; work that is waiting returns a shorter one."""

SESSION_EXPIRY_S = 24 * 3600
"""How long a broker keeps what arrives for a durable client that is away."""

MAX_TROUBLES = 100
"""Troubles remembered at once."""

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


class ServiceLink(StrictRecord, frozen=True, kw_only=True):
    """A service's place at its broker. `durable` keeps a session under `client_id` there, and leaves acknowledging to
    the receiver. The topic `announced_at` is told "" at the end, or by the Last Will."""

    broker: Broker
    subscriptions: Sequence[Subscription]
    client_id: str
    durable: bool = False
    announced_at: str | None = None


class BrokerConnection:
    """One client's connection. `receive` gets every message; `ready` is called after each complete subscription; `log`
    is told what the broker says and that it cannot be reached."""

    def __init__(
        self,
        post: ServiceLink,
        receive: Callable[[MessageReceived], None],
        ready: Callable[[], None],
        log: Callable[[str], None],
    ) -> None:
        self._post = post
        self._receive = receive
        self._ready = ready
        self._log = log
        self._ever_ready = False
        self._refusal: BrokerError | FleetError | None = None
        self._longest_wait_s = BACKOFF_S[1]
        self._lost_since: float | None = None
        self._troubles = RepeatedLog(log)
        self._brief = BriefConnections()
        broker = post.broker
        self._address = address_text(broker.host, broker.port)
        settings = LinkSettings(
            host=broker.host,
            port=broker.port,
            client_id=post.client_id,
            protocol=broker.protocol,
            username=broker.username,
            password_file=_text(broker.password_file),
            tls=partial(_context, broker) if broker.tls or broker.ca_file is not None else None,
            keepalive_s=broker.keepalive_s,
            subscriptions=tuple(post.subscriptions),
            will=None if post.announced_at is None else Will(topic=post.announced_at, payload=b""),
            session_s=SESSION_EXPIRY_S if post.durable else 0,
            handshake_s=HANDSHAKE_S,
        )
        self._link = BrokerLink(settings, self._hear, self._wait_s)

    def run(self, work: Callable[[], float], stopped: Callable[[], bool]) -> None:
        """Hold the connection until `stopped`, doing `work` between network steps and while there is none; it returns
        how many seconds the next step may wait.

        Raises BrokerError if the broker refuses us before the first success, FleetError for files that cannot be used;
        later refusals are retried.
        """
        farewell = [self._post.announced_at]

        def done() -> bool:
            if not stopped() and self._refusal is None:
                return False
            topic = farewell.pop() if farewell else None
            if topic is not None:
                self.publish(topic, b"", qos=1, retain=True)
            return True

        self._link.run(done, lambda: min(work(), STEP_S))
        if self._refusal is not None:
            raise self._refusal

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> bool:
        """Send a message if there is a connection; return whether it was taken for sending."""
        return self._link.publish(topic, payload, qos=qos, retain=retain) is not None

    def _hear(self, event: LinkEvent) -> None:
        if isinstance(event, MessageReceived):
            self._receive(event)
        elif isinstance(event, Connected):
            self._welcome(event)
        elif isinstance(event, Granted):
            self._granted(event)
        elif isinstance(event, Refused):
            self._troubles.say(event.reason, f"the broker refused a message on {event.topic[:200]!r}: {event.reason}")
        elif isinstance(event, Disconnected):
            self._lost(event)

    def _welcome(self, event: Connected) -> None:
        refused = ", ".join(f"{one.topic} ({one.reason})" for one in event.refused)
        if refused:
            self._refusal = (
                None if self._ever_ready else BrokerError(f"subscription refused: {refused}", subject=self._address)
            )
            self._log(f"the broker refuses subscriptions: {refused}")
            return
        for lack in self._lacks(event.limits):
            self._log(lack)
        if self._lost_since is not None:
            self._log(f"broker {self._address}: connected")
        self._lost_since = None
        self._brief.connected(time.monotonic())
        self._ever_ready = True
        self._ready()

    def _granted(self, event: Granted) -> None:
        """The broker has been told of our rights: begin when nothing is missing any more."""
        self._log(f"the broker grants {event.topic}")
        if not event.left:
            self._welcome(Connected(limits=self._link.limits))

    def _lacks(self, limits: BrokerLimits) -> list[str]:
        """Return what we would need of the broker and do not get."""
        post, lacks = self._post, []
        if any(one.topic.startswith(SHARED_PREFIX) for one in post.subscriptions) and not limits.shared_subscriptions:
            lacks.append("the broker has no shared subscriptions: only one service of this kind may run")
        if post.durable and limits.session_s is not None and limits.session_s < SESSION_EXPIRY_S:
            lacks.append(f"the broker keeps what arrives while this service is away for {limits.session_s} s only")
        if limits.max_qos == 0:
            lacks.append("the broker takes QoS 0 only: what gets lost on the way is not sent again")
        return lacks

    def _lost(self, event: Disconnected) -> None:
        now = time.monotonic()
        if self._lost_since is None:
            self._lost_since = now
        away = f"; away for {now - self._lost_since:.0f} s, trying again" if now - self._lost_since >= 1.0 else ""
        reason = self._brief.ended(event, now) or event.reason
        self._troubles.say(reason, f"broker {self._address}: {reason}{away}")
        self._longest_wait_s = DISPUTE_S if event.ending in ("lost", "taken-over") else BACKOFF_S[1]
        if self._ever_ready:
            return
        if event.ending == "settings":
            self._refusal = FleetError(event.reason, subject="broker")
        elif event.ending == "tls":
            self._refusal = BrokerError(event.reason, subject=self._address)
        elif event.ending == "refused" and event.code in UNAUTHORIZED:
            self._refusal = BrokerError(f"the broker refused the connection: {event.reason}", subject=self._address)

    def _wait_s(self, attempt: int) -> float:
        return random.random() * min(self._longest_wait_s, BACKOFF_S[0] * 2.0 ** min(attempt, 16))  # noqa: S311


class RepeatedLog:
    """Names each trouble at once, and again while it lasts, ever more seldom."""

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._said: dict[str, tuple[float, float]] = {}  # trouble -> when it may be named again, and the wait by then

    def say(self, trouble: str, line: str) -> None:
        """Log `line` about `trouble` unless that was named a short time ago."""
        now = self._clock()
        self._said = {known: due for known, due in self._said.items() if now < due[0] + 2 * REPEAT_S[1]}
        due, wait_s = self._said.get(trouble, (now, REPEAT_S[0] / 2))
        if now >= due and (trouble in self._said or len(self._said) < MAX_TROUBLES):
            wait_s = min(REPEAT_S[1], 2 * wait_s)
            self._said[trouble] = (now + wait_s, wait_s)
            self._log(line)


def new_client_id(service: str) -> str:
    """Return a client id that no other client has, for a service that keeps no session."""
    return f"ew-{service}-{os.urandom(6).hex()}"


def _context(broker: Broker) -> ssl.SSLContext:
    from edge_io.mqtt.tls import client_context

    try:
        return client_context(_text(broker.ca_file), _text(broker.certificate_file), _text(broker.key_file))
    except (OSError, ValueError) as error:
        raise SettingsError(f"certificates or key cannot be used: {error}") from error


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
