"""A depot as a running service: its link to the broker, its hint, its upstream, its counts in the log.

What it answers is decided in `edge_fleet.depot.depot`.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from edge_contracts.codec import StrictRecord, encode
from edge_contracts.topics import DEPOT_GROUP, all_devices, hint_topic, shared
from edge_fleet.depot.depot import Depot, HintWatch, counts_line
from edge_fleet.depot.pull_through import PullThrough
from edge_fleet.depot.rate_limit import Pace
from edge_fleet.depot.upstream import HttpUpstream
from edge_fleet.mqtt import STEP_S, Broker, BrokerConnection, ServiceLink, new_client_id
from edge_fleet.objects import PATTERNS, TUF_PATTERNS
from edge_io.mqtt.words import MessageReceived, Subscription

HINT_S = 1.0
"""How often a depot looks for a new timestamp."""

REPORT_S = 60.0
"""How often it prints its counts, when there was something to count."""

TURN_S = 0.01
"""How often what waits for upstream is looked at."""


class DepotSite(StrictRecord, frozen=True, kw_only=True):
    """The upstream repository's URL, whether it may use any TUF names instead of ours, how often its timestamp is
    looked at, in seconds (infinite: only when a device asks), and how many bytes of blobs are kept (None: all)."""

    upstream: str
    any_names: bool = False
    poll_s: float = 60.0
    limit: int | None = None


class Service(StrictRecord, frozen=True, kw_only=True):
    """What a depot process serves to whom. With a `site`, `repository` is its cache."""

    repository: Path
    tenant: str
    broker: Broker
    group: str = DEPOT_GROUP
    pace: Pace = Pace()
    site: DepotSite | None = None


def serve(
    service: Service, say: Callable[[str], None], log: Callable[[str], None], stopped: Callable[[], bool]
) -> None:
    """Serve until `stopped`. Says `depot ready` once subscribed. Raises BrokerError if the broker refuses us, and
    FleetError for an upstream that is none."""
    serving = _Serving(service, say, log)
    try:
        serving.link.run(serving.work, stopped)
    finally:
        serving.depot.close()
        log(counts_line(serving.depot.counts))


class _Serving:
    """A depot on its link: what happens at a message, at a connection, and between them."""

    def __init__(self, service: Service, say: Callable[[str], None], log: Callable[[str], None]) -> None:
        self._say, self._log = say, log
        site, now = service.site, time.monotonic()
        pull = None
        if site is not None:
            names = TUF_PATTERNS if site.any_names else PATTERNS
            pull = PullThrough(service.repository, HttpUpstream(site.upstream), log, names=names, limit=site.limit)
        self.depot = Depot(service.repository, service.tenant, service.pace, now, pull=pull)
        topic = shared(service.group, all_devices(service.tenant, "req"))
        place = ServiceLink(
            broker=service.broker, subscriptions=[Subscription(topic=topic)], client_id=new_client_id("depot")
        )
        self.link = BrokerConnection(place, self._receive, self._ready, log)
        self._hint_topic = hint_topic(service.tenant)
        self._watch = HintWatch(service.repository)
        self._hints = _Timer(HINT_S, now)
        self._reports = _Timer(REPORT_S, now)
        every = math.inf if site is None else site.poll_s
        self._polls = _Timer(every) if every == math.inf else _Timer(every, now - every)  # at once
        self._reported: Counter[str] = Counter()

    def work(self) -> float:
        """Do what is due; return the seconds to the next turn."""
        now = time.monotonic()
        for answer in self.depot.ripe(now):
            self.link.publish(answer.topic, answer.payload)
        if self._polls.due(now):
            self.depot.look_upstream(now)
        if self._hints.due(now):
            self._announce()
        if self._reports.due(now) and self.depot.counts != self._reported:
            self._reported = self.depot.counts.copy()
            self._log(counts_line(self._reported))
        return TURN_S if self.depot.waits else STEP_S

    def _receive(self, message: MessageReceived) -> None:
        answer = self.depot.answer(message.topic, message.payload, time.monotonic())
        if answer is not None:
            self.link.publish(answer.topic, answer.payload)

    def _ready(self) -> None:
        self._watch.forget()
        self._announce()
        self._say("depot ready")

    def _announce(self) -> None:
        hint = self._watch.changed()
        if hint is not None and not self.link.publish(self._hint_topic, encode(hint), qos=1, retain=True):
            self._watch.forget()


class _Timer:
    """Due every `period_s` monotonic seconds, at `now` plus one period first."""

    def __init__(self, period_s: float, now: float = 0.0) -> None:
        self._period_s = period_s
        self._last = now

    def due(self, now: float) -> bool:
        if now - self._last < self._period_s:
            return False
        self._last = now
        return True
