"""The controller: takes in what devices report, keeps short-lived metadata signed, carries planned rollouts on.

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
from edge_contracts.state import Presence, ReportedState
from edge_contracts.topics import INGEST_GROUP, all_devices, collector_topic, device_topic, shared
from edge_fleet.controller.attendance import Attendance
from edge_fleet.controller.ingest import parse_arrival
from edge_fleet.controller.keeping import Keeping
from edge_fleet.controller.rollout_driver import RolloutDriver
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

CONTESTED_S = 900.0
"""How often two devices with one identity are named."""

REFRESH_S = 5.0
"""How often expiries are looked at; a tenth of the timestamp's lifetime if that is shorter."""


class _Entry(StrictRecord, frozen=True, kw_only=True):
    """What to store for one delivery, or for none. What is `retained` was said earlier."""

    arrivals: tuple[Arrival, ...]
    retained: bool
    delivery: MessageReceived | None = None


class IngestQueue:
    """Collects messages, writes them in batches, and acknowledges what is written."""

    def __init__(self, store: TelemetryStore, log: Callable[[str], None]) -> None:
        self.counts: Counter[str] = Counter()
        self._store = store
        self._log = log
        self._attendance = Attendance()
        self._waiting: list[_Entry] = []
        self._not_before = 0.0

    @property
    def waiting(self) -> int:
        """Entries taken and not yet written."""
        return len(self._waiting)

    def take(self, delivery: MessageReceived, now: float) -> Arrival | None:
        """Keep a message for the next batch, due `GATHER_S` after its first, and return what it says. What is
        malformed is counted, logged and acknowledged, since it would be so the next time too."""
        try:
            arrival = parse_arrival(delivery.topic, delivery.payload)
        except ContractError as error:
            self.counts["malformed"] += 1
            self._log(f"malformed message on {delivery.topic[:200]!r}: {str(error)[:300]}")
            acknowledge(delivery)
            return None
        arrivals = tuple(self._attendance.heard(arrival, retained=delivery.retained, now=now))
        if arrivals:
            self._add(_Entry(arrivals=arrivals, retained=delivery.retained, delivery=delivery), now)
        else:
            acknowledge(delivery)  # it waits to be confirmed; a retained message comes again by itself
        return arrival

    def doubt(self, now: float) -> None:
        """After a new connection: whoever is stored as online has to show it again."""
        try:
            self._attendance.expect(self._store.online(), now)
        except SQLAlchemyError as error:
            self._log(f"database error: {str(error)[:300]}")

    def contested(self, presence: Presence) -> tuple[str, str] | None:
        """Return the boots of two devices that have one identity, if this live presence shows that."""
        return self._attendance.contested(presence)

    def write(self, now: float) -> None:
        """Store a batch if one is due or full. If the store fails, keep it and wait `RETRY_S`."""
        gone = tuple(self._attendance.overdue(now)) if math.isfinite(now) else ()
        if gone:
            self._log(f"not heard again, taken for offline: {', '.join(sorted({one.device for one in gone}))[:300]}")
            self._add(_Entry(arrivals=gone, retained=True), now)
        if not self._waiting or (now < self._not_before and len(self._waiting) < BATCH):
            return
        batch = self._waiting[:BATCH]
        try:
            self._ingest(batch)
        except SQLAlchemyError as error:
            self._not_before = now + RETRY_S
            self._log(f"database error, retrying: {str(error)[:300]}")
            return
        self._waiting = self._waiting[BATCH:]
        self.counts["stored"] += sum(len(entry.arrivals) for entry in batch)
        for entry in batch:
            if entry.delivery is not None:
                acknowledge(entry.delivery)

    def _add(self, entry: _Entry, now: float) -> None:
        if not self._waiting:
            self._not_before = max(self._not_before, now + GATHER_S)
        self._waiting.append(entry)

    def _ingest(self, batch: list[_Entry]) -> None:
        live = [arrival for entry in batch if not entry.retained for arrival in entry.arrivals]
        earlier = [arrival for entry in batch if entry.retained for arrival in entry.arrivals]
        retained = [arrival for arrival in earlier if isinstance(arrival, Presence | ReportedState)]
        self._store.ingest(live, utc_text(datetime.now(UTC)), retained=retained)


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
    serving = _Controller(fleet, post, store, say, log)
    try:
        serving.link.run(serving.work, stopped)
        serving.intake.write(math.inf)
    finally:
        serving.driver.close()
        serving.keeping.close()
        store.close()
        log(" ".join(["controller", *(f"{name}={count}" for name, count in sorted(serving.intake.counts.items()))]))


class _Controller:
    """A controller on its link: what happens at a message, at a connection, and between them."""

    def __init__(
        self,
        fleet: FleetWorkspace,
        post: Post,
        store: TelemetryStore,
        say: Callable[[str], None],
        log: Callable[[str], None],
    ) -> None:
        self._say, self._log = say, log
        self._tenant, self._name = fleet.tenant, post.client_id
        self.intake = IngestQueue(store, log)
        self._duties = ControllerDuties(fleet, log)
        self.driver = RolloutDriver(fleet, post.store_url, post.client_id, log)
        self.keeping = Keeping(fleet, post.store_url, post.client_id, log)
        self._collector = collector_topic(fleet.tenant, post.client_id)
        self._named: dict[str, float] = {}
        place = ServiceLink(
            broker=post.broker,
            subscriptions=subscriptions(fleet.tenant, post.group),
            client_id=post.client_id,
            durable=True,
            announced_at=self._collector,
        )
        self.link = BrokerConnection(place, self._receive, self._ready, log)

    def work(self) -> float:
        """Do what is due; return the seconds to the next turn."""
        now = time.monotonic()
        self.intake.write(now)
        self._duties.look(now)
        self.driver.look(now)
        self.keeping.look(now)
        return GATHER_S if self.intake.waiting else STEP_S

    def _receive(self, delivery: MessageReceived) -> None:
        now = time.monotonic()
        arrival = self.intake.take(delivery, now)
        if isinstance(arrival, Presence) and arrival.online and not delivery.retained:
            # The device may have come after our announcement, or not believe it: it is a retained one to it.
            answer = device_topic(self._tenant, arrival.device, "collector")
            self.link.publish(answer, self._name.encode(), qos=1)
            self._name_twins(arrival, now)

    def _name_twins(self, presence: Presence, now: float) -> None:
        boots = self.intake.contested(presence)
        if boots is not None and now >= self._named.get(presence.device, 0.0):
            self._named[presence.device] = now + CONTESTED_S
            self.intake.counts["contested"] += 1
            self._log(
                f"two devices connect as {presence.device}, taking turns (boots {boots[0]} and {boots[1]}): give one "
                "another device.id, or another identity"
            )

    def _ready(self) -> None:
        self.intake.doubt(time.monotonic())
        self.link.publish(self._collector, b"1", qos=1, retain=True)
        self._say("controller ready")


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
