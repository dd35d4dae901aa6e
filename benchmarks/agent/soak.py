"""A fleet of one device under load for an hour, with swaps, broker restarts and worker crashes all the time.

    PYTHONPATH=tests python benchmarks/agent/soak.py --minutes 60 --out benchmarks/results/soak.json

Broker, depot, controller and agent are real processes. The device has two slots. Swaps and crashes hit the slot "main",
whose workers live for minutes; the slot "steady" keeps one worker for the whole time, and broker restarts hit both.
Clients ask both all the time; an answer is right only if it is what the release it names would say. What a killed
worker of "main" had on the wire is lost and counted, nothing else may be.

Memory of supervisor and steady worker grows by so many megabytes an hour: least squares over the samples after a sixth
of the time. In minutes a slope cannot be told from one page, so the lives of the others have levels: how much each grew
from its third minute to its end, and where each ended beside the one before. Bytes written to disk are what the kernel
accounts to the agent and all it started.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from support.makers import bundles
from support.sites.fleet_site import MODEL, Site

from benchmarks.agent.http_load import Seen, constant_load, json_request, percentile
from benchmarks.agent.release_swaps import INPUT, PATH, models, wrong
from benchmarks.agent.soak_memory import Watch, growth
from edge_agent.config.profiles import load_profile
from edge_bench.environment import environment
from edge_contracts.codec import plain
from edge_fleet.database.telemetry import TelemetryStore
from edgewright.demo.broker import EmbeddedBroker
from edgewright.demo.client import Client
from edgewright.demo.stage import wait_for

EVENTS = ("swap", "broker", "crash", "broker")
"""What happens, in this order, over and over."""

DAY_S = 86_400

PAUSE_S = 0.02
"""How long a client waits after an answer, in seconds."""

STEADY = """
[[slots]]
name = "steady"
factory = "{factory}"
http = "127.0.0.1:0"
"""


class SoakSite(Site):
    """A site whose device sends windows at its ordinary pace (those of the tests are short) and has a second slot."""

    window_s = 60.0

    def write_config(self) -> None:
        super().write_config()
        text = self.config.read_text().replace("window_s = 1.0", f"window_s = {self.window_s}")
        factory = self.folder / "factory"
        bundles.make_bundle(factory, name=MODEL, version="0.1.0", models=models(0))
        self.config.write_text(text + STEADY.format(factory=factory))

    def slot(self, name: str = "main") -> dict[str, Any]:
        """Return the status of a slot."""
        return next(slot for slot in self.status()["slots"] if slot["slot"] == name)

    def address(self, name: str) -> tuple[str, int]:
        """Return where a slot answers."""
        host, _, port = self.slot(name)["http"].rpartition(":")
        return host, int(port)

    def worker(self, name: str) -> int:
        """Return the process that answers for a slot, once there is one."""
        return wait_for(f"a worker of {name}", lambda: next(iter(self.slot(name)["workers"]), None))

    def crash(self) -> None:
        """SIGKILL the worker of "main" and wait until another answers."""
        psutil.Process(self.worker("main")).kill()
        wait_for("answers again", lambda: bool(self.ask()))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--events", type=int, default=20, help="swaps, broker restarts and crashes, in turns")
    parser.add_argument("--clients", type=int, default=4, help="of each slot")
    parser.add_argument("--out", type=Path, help="write the samples here as JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="edgewright-soak-") as name:
        report = asyncio.run(soak(Path(name), options.minutes * 60, options.events, options.clients))
    print(json.dumps(report["summary"], indent=1))
    if options.out is not None:
        document = {"benchmark": "soak", "environment": plain(environment()), **report}
        options.out.write_text(json.dumps(document) + "\n", encoding="utf-8")
    summary = report["summary"]
    return 1 if summary["wrong"] or summary["gaps"] or summary["steady"]["wrong"] or summary["steady"]["lost"] else 0


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
        Client(site.slot("steady")["http"], MODEL, "x").infer(INPUT)
        steady = site.worker("steady")
        stop = asyncio.Event()
        pid = site.pid("agent")
        watch, written = Watch(pid, min(5.0, seconds / 60)), bytes_written(pid)
        loads = [
            asyncio.create_task(ask_all_the_time(site.address(slot), clients, stop)) for slot in ("main", "steady")
        ]
        watch.start()
        try:
            happened = await asyncio.to_thread(let_happen, site, broker, seconds, events)
        finally:
            stop.set()
            seen, seen_steady = await asyncio.gather(*loads)
        watch.stop.set()
        lasted = time.monotonic() - watch.began
        written = bytes_written(pid) - written
        assert site.worker("steady") == steady, "the steady slot has another worker than at the beginning"
        collected = await asyncio.to_thread(collect, site)
    summary = {
        "minutes": lasted / 60,
        "events": dict(Counter(what for what, _, _ in happened)),
        **answers(seen),
        "steady": answers(seen_steady),
        **collected,
        **growth(watch, steady, lasted),
        "written_mb_per_day": written / lasted * DAY_S / 1e6,
        "daily_writes_mb": load_profile(site.profile).storage.daily_writes_mb,
    }
    samples = {
        "supervisor_mb": watch.supervisor,
        "steady_mb": watch.workers.pop(steady),
        "workers_mb": watch.workers,
        "minutes": by_minute(seen),
    }
    return {"summary": summary, "events": happened, "samples": samples}


async def ask_all_the_time(address: tuple[str, int], clients: int, stop: asyncio.Event) -> Seen:
    """Ask a slot until `stop`."""
    return await constant_load(address, [(json_request(PATH, "x", INPUT), wrong)], clients, stop, PAUSE_S)


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
            site.crash()
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
    store = TelemetryStore(f"sqlite:///{site.fleet / 'fleet.db'}")
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
