"""Putting load on a loaded model, inside the measuring process. The scenarios are MLPerf's, each query answered by one
call of the engine for each of its samples, as the agent serves: one at a time.

Latencies are those of queries in milliseconds: single stream and multi stream from issue to the last answer, server
from the moment the query was due, whether or not the model was free then, offline of each sample.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_agent.ports import Session
from edge_bench.protocol import Drive, Driven

Feeds = dict[str, Any]

MOST_QUERIES = 2_000_000
"""Queries of one block at most: their latencies are kept in memory until it ends."""

SPIN_S = 0.0002
"""The last moments before a query is due are waited for awake: sleeping overshoots by as much. Their CPU time is not
counted as the model's."""


@dataclass(kw_only=True)
class Log:
    """Latencies of queries in nanoseconds, how many samples were answered, and CPU time spent on waiting."""

    latencies_ns: list[int] = field(default_factory=list)
    samples: int = 0
    waiting_s: float = 0.0

    def full(self, order: Drive) -> bool:
        """Tell whether as many queries are answered as were asked for, or can be kept."""
        return len(self.latencies_ns) >= min(order.count or MOST_QUERIES, MOST_QUERIES)


def drive(session: Session, feeds: Sequence[Feeds], order: Drive) -> Driven:
    """Run one block and write its latencies (float64, milliseconds) into `order.out`. Raises EngineError."""
    scenario: Callable[[Session, Iterator[Feeds], Drive], Log] = _SCENARIOS[order.scenario]
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    log = scenario(session, _in_turn(feeds, order.seed), order)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    np.asarray(log.latencies_ns, dtype=np.float64).__truediv__(1e6).tofile(order.out)
    return Driven(
        queries=len(log.latencies_ns),
        samples=log.samples,
        wall_s=wall,
        cpu_s=max(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime - log.waiting_s, 0.0),
        major_faults=after.ru_majflt - before.ru_majflt,
        minor_faults=after.ru_minflt - before.ru_minflt,
        given_way=after.ru_nivcsw - before.ru_nivcsw,
    )


def _in_turn(feeds: Sequence[Feeds], seed: int) -> Iterator[Feeds]:
    """Yield feeds in a random order that is another in each round: no input follows itself more often than chance."""
    draws = np.random.default_rng(seed)
    while True:
        for place in draws.permutation(len(feeds)):
            yield feeds[place]


def _single_stream(session: Session, feeds: Iterator[Feeds], order: Drive) -> Log:
    log, run, now = Log(), session.run, time.perf_counter_ns
    end = now() + int(order.seconds * 1e9)
    while not log.full(order):
        feed = next(feeds)
        start = now()
        run(feed)
        done = now()
        log.latencies_ns.append(done - start)
        if done >= end:
            break
    log.samples = len(log.latencies_ns)
    return log


def _multi_stream(session: Session, feeds: Iterator[Feeds], order: Drive) -> Log:
    log, run, now = Log(), session.run, time.perf_counter_ns
    end = now() + int(order.seconds * 1e9)
    while not log.full(order):
        query = [next(feeds) for _ in range(order.streams)]
        start = now()
        for feed in query:
            run(feed)
        done = now()
        log.latencies_ns.append(done - start)
        if done >= end:
            break
    log.samples = len(log.latencies_ns) * order.streams
    return log


def _server(session: Session, feeds: Iterator[Feeds], order: Drive) -> Log:
    """Queries are due at the moments of a Poisson process; one that comes while the model is busy waits."""
    log, run, now = Log(), session.run, time.perf_counter_ns
    draws = np.random.default_rng(order.seed)
    start, due = now(), 0.0
    while not log.full(order):
        due += draws.exponential(1.0 / order.rate)
        if due > order.seconds:
            break
        feed = next(feeds)
        at = start + int(due * 1e9)
        log.waiting_s += _wait_until(at)
        run(feed)
        log.latencies_ns.append(now() - at)
    log.samples = len(log.latencies_ns)
    rest = order.seconds - (now() - start) / 1e9
    if rest > 0 and not log.full(order):
        time.sleep(rest)
    return log


def _wait_until(at_ns: int) -> float:
    """Wait; return the CPU seconds that it took."""
    left = (at_ns - time.perf_counter_ns()) / 1e9
    if left <= 0:
        return 0.0
    before = time.thread_time()
    if left > SPIN_S:
        time.sleep(left - SPIN_S)
    while time.perf_counter_ns() < at_ns:
        pass
    return time.thread_time() - before


_SCENARIOS: dict[str, Callable[[Session, Iterator[Feeds], Drive], Log]] = {
    "single_stream": _single_stream,
    "multi_stream": _multi_stream,
    "server": _server,
    "offline": _single_stream,
}
"""Offline has all samples at once; a model that answers one at a time does what single stream does, and is judged by
its throughput."""
