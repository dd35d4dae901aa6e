"""A fleet of one device under load for an hour, with swaps, broker restarts and worker crashes all the time.

    PYTHONPATH=tests python benchmarks/soak.py --minutes 60 --out benchmarks/results/soak.json

Broker, depot, controller and agent are real processes. Clients ask all the time; an answer is right only if it is what
the release it names would say. Requests that are on the wire when a worker is killed are lost and counted, nothing else
may be. Memory grows by so many megabytes an hour: least squares over the samples after a sixth of the time, for workers
within each worker's own life. Bytes written to disk are what the kernel accounts to the agent and all it started.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil
from fleet_site import Site

from edge_agent.profiles import load_profile
from edge_bench.environment import environment
from edge_contracts.codec import plain
from edge_fleet.store import Store
from edgewright.demo.broker import EmbeddedBroker
from edgewright.demo.stage import wait_for
from http_load import Seen, constant_load, json_request, percentile
from swaps import INPUT, PATH, models, wrong

EVENTS = ("swap", "broker", "crash", "broker")
"""What happens, in this order, over and over."""

DAY_S = 86_400
WORKER_WARM_S = 180.0
"""A new worker's memory still grows by some kilobytes in its first minutes, as its pools fill."""

Samples = list[tuple[float, float]]
"""Seconds since the beginning, megabytes."""


class SoakSite(Site):
    """A site whose device sends windows at its ordinary pace; those of the tests are short."""

    window_s = 60.0

    def start(self, name: str, *words: str, ready: str | None = None) -> None:
        if name == "agent":
            text = self.config.read_text()
            self.config.write_text(text.replace("window_s = 1.0", f"window_s = {self.window_s}"))
        super().start(name, *words, ready=ready)


class Watch(threading.Thread):
    """Samples the agent's memory until it is stopped."""

    def __init__(self, pid: int, every_s: float) -> None:
        super().__init__(daemon=True)
        self.supervisor: Samples = []
        self.workers: dict[int, Samples] = {}
        self.stop = threading.Event()
        self.began = time.monotonic()
        self._every_s = every_s
        self._process = psutil.Process(pid)

    def run(self) -> None:
        while not self.stop.wait(self._every_s):
            now = time.monotonic() - self.began
            self.supervisor.append((now, self._process.memory_info().rss / 2**20))
            for child in self._process.children():
                try:
                    if "edge_agent.worker" in child.cmdline():
                        self.workers.setdefault(child.pid, []).append((now, child.memory_info().rss / 2**20))
                except psutil.NoSuchProcess:
                    continue


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--events", type=int, default=20, help="swaps, broker restarts and crashes, in turns")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--out", type=Path, help="write the samples here as JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="edgewright-soak-") as name:
        report = asyncio.run(soak(Path(name), options.minutes * 60, options.events, options.clients))
    print(json.dumps(report["summary"], indent=1))
    if options.out is not None:
        document = {"benchmark": "soak", "environment": plain(environment()), **report}
        options.out.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return 1 if report["summary"]["wrong"] or report["summary"]["gaps"] else 0


async def soak(folder: Path, seconds: float, events: int, clients: int, window_s: float = 60.0) -> dict[str, Any]:
    """Run the soak; return its summary, its events and its samples. Raises when something does not recover."""
    with EmbeddedBroker() as broker, SoakSite(folder, broker) as site:
        site.window_s, site.poll_s = window_s, 60.0
        site.publish("1.0.0", models=models(0))
        site.start_depot()
        site.start_controller()
        site.start_agent()
        site.roll_out("1.0.0")
        site.wait_for_state("committed", "1.0.0")
        site.serves("1.0.0")
        host, _, port = site.slot()["http"].rpartition(":")
        stop = asyncio.Event()
        load = asyncio.create_task(
            constant_load((host, int(port)), json_request(PATH, "x", INPUT), clients, wrong, stop, 0.02)
        )
        pid = site.pid("agent")
        watch, written = Watch(pid, min(5.0, seconds / 60)), bytes_written(pid)
        watch.start()
        try:
            happened = await asyncio.to_thread(let_happen, site, broker, seconds, events)
        finally:
            stop.set()
            seen = await load
        watch.stop.set()
        lasted = time.monotonic() - watch.began
        written = bytes_written(pid) - written
        collected = await asyncio.to_thread(collect, site)
    summary = {
        "minutes": lasted / 60,
        "events": dict(Counter(what for what, _, _ in happened)),
        **answers(seen),
        **collected,
        **growth(watch, lasted),
        "written_mb_per_day": written / lasted * DAY_S / 1e6,
        "daily_writes_mb": load_profile(site.profile).storage.daily_writes_mb,
    }
    samples = {"supervisor_mb": watch.supervisor, "workers_mb": watch.workers, "minutes": by_minute(seen)}
    return {"summary": summary, "events": happened, "samples": samples}


def let_happen(site: SoakSite, broker: EmbeddedBroker, seconds: float, events: int) -> list[tuple[str, float, float]]:
    """Let the events happen, evenly spread; return what, when it began, and how long it took until all was well."""
    began = time.monotonic()
    happened = []
    for number in range(1, events + 1):
        time.sleep(max(0.0, began + seconds * number / (events + 1) - time.monotonic()))
        what = EVENTS[(number - 1) % len(EVENTS)]
        start = time.monotonic()
        if what == "swap":
            version = f"1.{number}.0"
            site.publish(version, models=models(number))
            site.roll_out(version, soak_s=1.0)
            site.wait_for_state("committed", version, timeout_s=120)
        elif what == "crash":
            assert site.kill("worker")
            wait_for("answers again", lambda: bool(site.ask()))
        else:
            broker.kill()
            time.sleep(min(10.0, seconds / 60))
            broker.start()
            wait_for("the agent is connected", lambda: bool(site.status()["broker_connected"]), timeout_s=120)
        happened.append((what, start - began, time.monotonic() - start))
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    return happened


def collect(site: SoakSite) -> dict[str, Any]:
    """Wait until the spool is empty and return what the collector has and has not."""
    wait_for("an empty spool", lambda: site.status()["spooled"] == 0 or None, timeout_s=60)
    status = site.status()
    store = Store(f"sqlite:///{site.fleet / 'fleet.db'}")
    try:
        device, boot = status["device"], status["boot_id"]
        wait_for("everything collected", lambda: bool(store.sequences(device, boot)), timeout_s=30)
        gaps = [[run.start, run.stop] for run in store.gaps(device, boot)]
        return {"messages": len(store.sequences(device, boot)), "gaps": gaps, "dropped": status["dropped"]}
    finally:
        store.close()


def answers(seen: Seen) -> dict[str, Any]:
    """Count the answers; a request that got none was lost."""
    kinds = Counter(problem.partition(":")[0] for problem in seen.problems)
    wrong_ones = sum(count for kind, count in kinds.items() if kind.startswith("a wrong answer"))
    return {
        "requests": len(seen.seconds),
        "wrong": wrong_ones,
        "lost": len(seen.problems) - wrong_ones,
        "problems": dict(kinds),
        "p50_ms": percentile(seen.seconds, 0.5) * 1e3,
        "p99_ms": percentile(seen.seconds, 0.99) * 1e3,
    }


def growth(watch: Watch, lasted: float) -> dict[str, Any]:
    """Return how fast memory grew after a sixth of the time (ten minutes of an hour)."""
    settled = lasted / 6
    supervisor = [sample for sample in watch.supervisor if sample[0] > settled]
    lives = []
    for life in watch.workers.values():
        warm = max(settled, life[0][0] + min(WORKER_WARM_S, settled))
        lives.append([sample for sample in life if sample[0] > warm])
    return {
        "supervisor_mb_per_h": slope([supervisor]) * 3600,
        "worker_mb_per_h": slope(lives) * 3600,
        "supervisor_mb": supervisor[-1][1],
        "worker_mb": max(life[-1][1] for life in watch.workers.values()),
        "workers": len(watch.workers),
    }


def slope(groups: Iterable[Sequence[tuple[float, float]]]) -> float:
    """Return the least-squares slope common to all groups, each with a level of its own."""
    above = below = 0.0
    for group in groups:
        if len(group) < 2:
            continue
        mean_t = sum(t for t, _ in group) / len(group)
        mean_y = sum(y for _, y in group) / len(group)
        above += sum((t - mean_t) * (y - mean_y) for t, y in group)
        below += sum((t - mean_t) ** 2 for t, _ in group)
    return above / below if below else 0.0


def by_minute(seen: Seen) -> list[dict[str, float]]:
    """Return requests and percentiles of every minute."""
    minutes: dict[int, list[float]] = {}
    first = min(seen.started)
    for start, took in zip(seen.started, seen.seconds, strict=True):
        minutes.setdefault(int((start - first) / 60), []).append(took * 1e3)
    return [
        {"requests": len(times), "p50_ms": percentile(times, 0.5), "p99_ms": percentile(times, 0.99)}
        for _, times in sorted(minutes.items())
    ]


def bytes_written(pid: int) -> int:
    """Return what the kernel accounts to a process, its children still running, and those that have ended."""
    total = 0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            total += process.io_counters().write_bytes
        except psutil.NoSuchProcess:
            continue
    return total


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
