"""The depot: answers devices' requests from a repository folder. Stateless; more depots are more throughput.

`Depot` turns one request into one answer and knows no MQTT; `edge_fleet.depot.service` wires it to a broker. It holds
no key and is not trusted: what it gives out, devices verify. What it protects is others from its requesters: it answers
only on the requester's own topic, only names that objects can have, and only as fast as its pace. With a `PullThrough`
the folder is a cache of another repository, and an answer may come a little later.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edge_contracts.errors import ContractError
from edge_contracts.topics import DeviceAddress, parse_device_topic
from edge_contracts.transfer import Hint, Request, Response, Status, pack, unpack_request
from edge_fleet.depot.pull_through import Fetch, PullThrough
from edge_fleet.depot.rate_limit import Pace, RequesterLimits
from edge_fleet.errors import ObjectMissingError, ObjectNameError, RepositoryError
from edge_fleet.objects import PATTERNS, ObjectReader
from edge_fleet.signing.metadata import read_metadata

PATIENCE_S = 0.5
"""How long a request waits for upstream before its device is told to come back: below a device's own patience, which
begins at one second."""

AWAY_S = 5.0
"""When a device is told to come back if upstream cannot be reached."""

MAX_WAITING = 1024
"""Requests waiting for upstream; beyond it devices are told to come back at once."""

DEVICE_FETCHES = 3
"""Objects that one device may wait for: fewer than are fetched at once, so that no device keeps the others out."""


@dataclass(frozen=True, kw_only=True)
class DepotAnswer:
    """Where an answer goes and its bytes."""

    topic: str
    payload: bytes


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A request that waits for upstream, until monotonic time `until`."""

    device: str
    request: Request
    fetch: Fetch
    until: float


class Depot:
    """Answers requests of one tenant.

    `counts` has an entry for each status answered, `malformed` and `foreign` (no answer), and the bytes given out.
    """

    def __init__(
        self, repository: Path, tenant: str, pace: Pace, now: float, *, pull: PullThrough | None = None
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._pull = pull
        self._objects = ObjectReader(repository, PATTERNS if pull is None else pull.names)
        self._tenant = tenant
        self._admission = RequesterLimits(pace, now)
        self._waiting: list[Waiting] = []

    @property
    def waits(self) -> bool:
        """Whether there are requests that wait for upstream; `ripe` has their answers."""
        return bool(self._waiting)

    def answer(self, topic: str, payload: bytes, now: float) -> DepotAnswer | None:
        """Return the answer to one request at monotonic time `now`, or None if it deserves none or none yet."""
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
        return None if response is None else self._addressed(request, response)

    def ripe(self, now: float) -> list[DepotAnswer]:
        """Return the answers that are no longer waiting for upstream at monotonic time `now`."""
        answers, waiting = [], []
        for one in self._waiting:
            outcome = one.fetch.outcome
            if outcome == "here":
                answers.append(self._addressed(one.request, self._given(one.device, one.request)))
            elif outcome is None and now < one.until:
                waiting.append(one)
            else:
                answers.append(self._addressed(one.request, _put_off(one.request, one.fetch)))
        self._waiting = waiting
        return answers

    def look_upstream(self, now: float) -> None:
        """Bring the newest timestamp into the folder, where there is an upstream."""
        if self._pull is not None:
            self._pull.ask("metadata", "timestamp.json", 0, now)

    def close(self) -> None:
        """Close open files."""
        self._objects.close()

    def _respond(self, device: str, request: Request, now: float) -> Response | None:
        delay = self._admission.wait(device, now, bulk=request.kind == "blob")
        if delay > 0.0:
            return Response(id=request.id, status="retry_after", retry_after=delay)
        try:
            fetch = None if self._pull is None else self._fetch(self._pull, device, request, now)
        except ObjectNameError:
            return Response(id=request.id, status="refused")
        if fetch is None:
            return self._given(device, request)
        if len(self._waiting) >= MAX_WAITING:
            return _put_off(request, fetch)
        self._waiting.append(Waiting(device=device, request=request, fetch=fetch, until=now + PATIENCE_S))
        return None

    def _fetch(self, pull: PullThrough, device: str, request: Request, now: float) -> Fetch | None:
        waited_for = {id(one.fetch) for one in self._waiting if one.device == device}
        begin = len(waited_for) < DEVICE_FETCHES
        return pull.ask(request.kind, request.name, request.offset, now, begin=begin)

    def _given(self, device: str, request: Request) -> Response:
        """Return the answer out of the folder."""
        try:
            body, total = self._objects.read(request.kind, request.name, request.offset, request.length)
        except (ObjectNameError, ObjectMissingError) as error:
            status: Status = "refused" if isinstance(error, ObjectNameError) else "not_found"
            return Response(id=request.id, status=status)
        self._admission.spend(device, len(body))
        return Response(id=request.id, status="ok", offset=request.offset, total=total, body=body)

    def _addressed(self, request: Request, response: Response) -> DepotAnswer:
        self.counts[response.status] += 1
        self.counts["bytes"] += len(response.body)
        return DepotAnswer(topic=request.reply, payload=pack(response))


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


def counts_line(counts: Counter[str]) -> str:
    """Return the counts as one line of `name=number`."""
    return " ".join(["depot", *(f"{name}={counts[name]}" for name in sorted(counts))])


def _put_off(request: Request, fetch: Fetch) -> Response:
    """Return the answer to a request whose object did not come: not yet, or never."""
    if fetch.outcome == "missing":
        return Response(id=request.id, status="not_found")
    delay = PATIENCE_S if fetch.outcome is None else AWAY_S if fetch.later_s is None else fetch.later_s
    return Response(id=request.id, status="retry_after", retry_after=delay)


def _is_own(sender: DeviceAddress, reply: str) -> bool:
    try:
        asked = parse_device_topic(reply)
    except ContractError:
        return False
    return asked.topic == "rsp" and (asked.tenant, asked.device) == (sender.tenant, sender.device)
