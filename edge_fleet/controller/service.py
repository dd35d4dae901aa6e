"""The controller: takes in what devices report, and keeps the short-lived metadata signed.

Telemetry comes through a shared subscription, so several controllers share the load; reported state and presence are
retained and come to each of them, because a shared subscription gets no retained messages (MQTT 5, 4.8.2) and
storing them twice changes nothing. A message is acknowledged after its batch is committed: a controller that dies
before gets it again.
"""

from __future__ import annotations

import hashlib
import math
import socket
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError

from edge_contracts.codec import StrictRecord
from edge_contracts.errors import ContractError, EdgewrightError
from edge_contracts.topics import INGEST_GROUP, all_devices, collector_topic, shared
from edge_fleet.controller.ingest import parse_arrival
from edge_fleet.database.telemetry import Arrival, TelemetryStore
from edge_fleet.mqtt import STEP_S, Broker, BrokerConnection, ServiceLink
from edge_fleet.signing.refresh import ONLINE_ROLES, refresh
from edge_fleet.signing.workspace import FleetWorkspace
from edge_io.mqtt.words import MessageReceived, Subscription

BATCH = 200
"""Messages in one transaction at most."""

GATHER_S = 0.01
"""How long the first message of a batch waits for more. Brokers send few unacknowledged ones (Mosquitto: 20)."""

RETRY_S = 1.0
"""How long to wait after the store or a signature failed."""

REFRESH_S = 5.0
"""How often expiries are looked at; a tenth of the timestamp's lifetime if that is shorter."""


class IngestQueue:
    """Collects messages, writes them in batches, and acknowledges what is written."""

    def __init__(self, store: TelemetryStore, log: Callable[[str], None]) -> None:
        self.counts: Counter[str] = Counter()
        self._store = store
        self._log = log
        self._waiting: list[tuple[Arrival, MessageReceived]] = []
        self._not_before = 0.0

    @property
    def waiting(self) -> int:
        """Messages taken and not yet written."""
        return len(self._waiting)

    def take(self, delivery: MessageReceived, now: float) -> None:
        """Keep a message for the next batch, due `GATHER_S` after its first. What is malformed is counted, logged and
        acknowledged, since it would be so the next time too."""
        try:
            arrival = parse_arrival(delivery.topic, delivery.payload)
        except ContractError as error:
            self.counts["malformed"] += 1
            self._log(f"malformed message on {delivery.topic[:200]!r}: {str(error)[:300]}")
            acknowledge(delivery)
            return
        if not self._waiting:
            self._not_before = max(self._not_before, now + GATHER_S)
        self._waiting.append((arrival, delivery))

    def write(self, now: float) -> None:
        """TelemetryStore a batch if one is due or full. If the store fails, keep it and wait `RETRY_S`."""
        if not self._waiting or (now < self._not_before and len(self._waiting) < BATCH):
            return
        batch = self._waiting[:BATCH]
        try:
            self._store.ingest([arrival for arrival, _ in batch], utc_text(datetime.now(UTC)))
        except SQLAlchemyError as error:
            self._not_before = now + RETRY_S
            self._log(f"database error, retrying: {str(error)[:300]}")
            return
        self._waiting = self._waiting[BATCH:]
        self.counts["stored"] += len(batch)
        for _, delivery in batch:
            acknowledge(delivery)


class ControllerDuties:
    """Signs short-lived metadata again in time."""

    def __init__(self, fleet: FleetWorkspace, log: Callable[[str], None]) -> None:
        self._fleet = fleet
        self._log = log
        self._every_s = min(REFRESH_S, fleet.settings.expiry_days.timestamp * 86400 / 10)
        self._next = 0.0
        self._missing: tuple[str, ...] = ()

    def look(self, now: float) -> None:
        """Sign what is due, at monotonic time `now`. Failures are logged and tried again."""
        if now < self._next:
            return
        self._next = now + self._every_s
        try:
            done = refresh(self._fleet, datetime.now(UTC), ONLINE_ROLES)
        except (EdgewrightError, OSError) as error:
            self._log(f"re-signing failed: {error}")
            return
        if done.signed:
            self._log(f"re-signed: {', '.join(done.signed)}")
        if done.missing and done.missing != self._missing:
            self._log(f"due, but no key available here: {', '.join(done.missing)}")
        self._missing = done.missing


class Post(StrictRecord, frozen=True, kw_only=True):
    """Where a controller works: broker, database, and its own name there."""

    broker: Broker
    store_url: str
    client_id: str
    group: str = INGEST_GROUP


def control(
    fleet: FleetWorkspace,
    post: Post,
    say: Callable[[str], None],
    log: Callable[[str], None],
    stopped: Callable[[], bool],
) -> None:
    """Work until `stopped`. Says `controller ready` once subscribed. Raises BrokerError if the broker refuses us."""
    store = TelemetryStore(post.store_url)
    intake = IngestQueue(store, log)
    duties = ControllerDuties(fleet, log)

    def receive(delivery: MessageReceived) -> None:
        intake.take(delivery, time.monotonic())

    def work() -> float:
        now = time.monotonic()
        intake.write(now)
        duties.look(now)
        return GATHER_S if intake.waiting else STEP_S

    collector = collector_topic(fleet.tenant, post.client_id)
    place = ServiceLink(
        broker=post.broker,
        subscriptions=subscriptions(fleet.tenant, post.group),
        client_id=post.client_id,
        durable=True,
        announced_at=collector,
    )

    def ready() -> None:
        link.publish(collector, b"1", qos=1, retain=True)
        say("controller ready")

    link = BrokerConnection(place, receive, ready, log)
    try:
        link.run(work, stopped)
        intake.write(math.inf)
    finally:
        store.close()
        log(" ".join(["controller", *(f"{name}={intake.counts[name]}" for name in sorted(intake.counts))]))


def acknowledge(delivery: MessageReceived) -> None:
    """Tell the broker that the message is in safe hands."""
    if delivery.acknowledge is not None:
        delivery.acknowledge()


def subscriptions(tenant: str, group: str) -> list[Subscription]:
    """Return what a controller listens to."""
    return [
        Subscription(topic=shared(group, all_devices(tenant, "tele")), qos=1),
        Subscription(topic=all_devices(tenant, "reported"), qos=1),
        Subscription(topic=all_devices(tenant, "presence"), qos=1),
    ]


def default_client_id(fleet: FleetWorkspace) -> str:
    """Return a name that is the same at every start of this fleet's controller on this machine, and nowhere else."""
    place = f"{socket.gethostname()}:{fleet.path.absolute()}"
    return f"ew-controller-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def utc_text(moment: datetime) -> str:
    """Return a time as contracts write it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
