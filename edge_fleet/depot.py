"""The depot: answers devices' requests from a repository folder. Stateless; more depots are more throughput.

`Depot` turns one request into one answer and knows no MQTT; `serve` wires it to a broker. A depot holds no key and
is not trusted: what it gives out, devices verify. What it protects is others from its requesters: it answers only on
the requester's own topic, only names that objects can have, and only as fast as its pace.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_contracts.codec import StrictRecord, encode
from edge_contracts.errors import ContractError
from edge_contracts.topics import DEPOT_GROUP, DeviceAddress, all_devices, hint_topic, parse_device_topic, shared
from edge_contracts.transfer import Hint, Request, Response, Status, pack, unpack_request
from edge_fleet.errors import ObjectMissingError, ObjectNameError, RepositoryError
from edge_fleet.link import STEP_S, Broker, Delivery, Link, Subscription
from edge_fleet.objects import Shelf
from edge_fleet.pacing import Admission, Pace
from edge_fleet.repository import read_metadata

HINT_S = 1.0
"""How often a depot looks for a new timestamp."""

REPORT_S = 60.0
"""How often it prints its counts, when there was something to count."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Where an answer goes and its bytes."""

    topic: str
    payload: bytes


class Depot:
    """Answers requests of one tenant.

    `counts` has an entry for each status answered, `malformed` and `foreign` (no answer), and the bytes given out.
    """

    def __init__(self, repository: Path, tenant: str, pace: Pace, now: float) -> None:
        self.counts: Counter[str] = Counter()
        self._shelf = Shelf(repository)
        self._tenant = tenant
        self._admission = Admission(pace, now)

    def answer(self, topic: str, payload: bytes, now: float) -> Answer | None:
        """Return the answer to one request at monotonic time `now`, or None if it deserves none."""
        try:
            sender = parse_device_topic(topic)
            request = unpack_request(payload)
        except ContractError:
            self.counts["malformed"] += 1
            return None
        if sender.tenant != self._tenant or not _is_own(sender, request.reply):
            self.counts["foreign"] += 1
            return None
        response = self._respond(sender.device, request, now)
        self.counts[response.status] += 1
        self.counts["bytes"] += len(response.body)
        return Answer(topic=request.reply, payload=pack(response))

    def close(self) -> None:
        """Close open files."""
        self._shelf.close()

    def _respond(self, device: str, request: Request, now: float) -> Response:
        delay = self._admission.wait(device, now, bulk=request.kind == "blob")
        if delay > 0.0:
            return Response(id=request.id, status="retry_after", retry_after=delay)
        try:
            body, total = self._shelf.read(request.kind, request.name, request.offset, request.length)
        except (ObjectNameError, ObjectMissingError) as error:
            status: Status = "refused" if isinstance(error, ObjectNameError) else "not_found"
            return Response(id=request.id, status=status)
        self._admission.spend(device, len(body))
        return Response(id=request.id, status="ok", offset=request.offset, total=total, body=body)


class HintWatch:
    """Notices a new timestamp.json by its modification time."""

    def __init__(self, repository: Path) -> None:
        self._path = repository / "metadata" / "timestamp.json"
        self._seen = 0

    def changed(self) -> Hint | None:
        """Return the hint to publish, or None if nothing is new."""
        try:
            modified = self._path.stat().st_mtime_ns
            if modified == self._seen:
                return None
            hint = Hint(timestamp_version=read_metadata(self._path).signed.version)
        except (OSError, RepositoryError):
            return None
        self._seen = modified
        return hint

    def forget(self) -> None:
        """Make the next look report again: a broker that restarted lost what it retained."""
        self._seen = 0


class Service(StrictRecord, frozen=True, kw_only=True):
    """What a depot process serves to whom."""

    repository: Path
    tenant: str
    broker: Broker
    group: str = DEPOT_GROUP
    pace: Pace = Pace()


def serve(
    service: Service, say: Callable[[str], None], log: Callable[[str], None], stopped: Callable[[], bool]
) -> None:
    """Serve until `stopped`. Says `depot ready` once subscribed. Raises BrokerError if the broker refuses us."""
    depot = Depot(service.repository, service.tenant, service.pace, time.monotonic())
    watch = HintWatch(service.repository)
    looked = reported = time.monotonic()
    known: Counter[str] = Counter()

    def receive(message: Delivery) -> None:
        answer = depot.answer(message.topic, message.payload, time.monotonic())
        if answer is not None:
            link.publish(answer.topic, answer.payload)

    def ready() -> None:
        watch.forget()
        announce()
        say("depot ready")

    def announce() -> None:
        hint = watch.changed()
        if hint is not None and not link.publish(hint_topic(service.tenant), encode(hint), qos=1, retain=True):
            watch.forget()

    def work() -> float:
        nonlocal looked, reported, known
        now = time.monotonic()
        if now - looked >= HINT_S:
            looked = now
            announce()
        if now - reported >= REPORT_S and depot.counts != known:
            reported, known = now, depot.counts.copy()
            log(counts_line(depot.counts))
        return STEP_S

    topic = shared(service.group, all_devices(service.tenant, "req"))
    link = Link(service.broker, [Subscription(topic=topic)], receive, ready)
    try:
        link.run(work, stopped)
    finally:
        depot.close()
        log(counts_line(depot.counts))


def counts_line(counts: Counter[str]) -> str:
    """Return the counts as one line of `name=number`."""
    return " ".join(["depot", *(f"{name}={counts[name]}" for name in sorted(counts))])


def _is_own(sender: DeviceAddress, reply: str) -> bool:
    try:
        asked = parse_device_topic(reply)
    except ContractError:
        return False
    return asked.topic == "rsp" and (asked.tenant, asked.device) == (sender.tenant, sender.device)
