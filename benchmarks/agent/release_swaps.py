"""Constant load through swaps of releases by the real supervisor: failed requests, wrong answers, latency meanwhile.

    PYTHONPATH=tests python benchmarks/agent/release_swaps.py --swaps 20 --out benchmarks/results/swaps.json

Eight kept-alive clients ask all the time, each a short pause after its last answer, while one release after the other
is imported, tried, swapped in and committed. Each release answers with numbers of its own, so an answer is right only
if it is what the release it names would say. A swap lasts from the start of the new worker to the end of the old one;
steady is the time in which no update runs at all. No request is ever repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from support.makers import bundles
from support.sites.agent_process import AgentProcess
from support.sites.update_site import MODEL, UpdateSite

from benchmarks.agent.http_load import Reply, Seen, constant_load, json_request, percentile
from edge_bench.environment import environment
from edge_contracts.channel import Gates
from edge_contracts.codec import plain

PATH = f"/v2/models/{MODEL}/infer"
STEADY_S = 1.5
"""How long nothing happens between two updates."""


@dataclass(frozen=True, kw_only=True)
class Period:
    """A swap, or a time in which nothing happened; `time.monotonic`."""

    kind: str
    start: float
    end: float


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--pause-ms", type=float, default=10.0, help="between an answer and the client's next request")
    parser.add_argument("--out", type=Path, help="write all samples here as JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="edgewright-swaps-") as name:
        seen, periods = asyncio.run(swaps(Path(name), options.swaps, options.clients, options.pause_ms / 1000))
    document = {
        "benchmark": "swaps",
        "environment": plain(environment()),
        "clients": options.clients,
        "pause_ms": options.pause_ms,
        "summary": summary(seen, periods),
        "problems": seen.problems[:100],
        "samples_ms": samples(seen, periods),
    }
    print(json.dumps(document["summary"], indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return 1 if seen.problems else 0


async def swaps(folder: Path, count: int, clients: int, pause_s: float) -> tuple[Seen, list[Period]]:
    """Run an agent through `count` swaps under load; return what the clients saw, and when what was going on."""
    site = UpdateSite(folder)
    factory = bundles.make_bundle(folder / "factory", name=MODEL, version="0.1.0", models=models(0))
    with AgentProcess(folder, site, factory=factory.folder) as agent:
        agent.served_by()
        host, _, port = agent.slot().http.rpartition(":")
        stop = asyncio.Event()
        questions = [(json_request(PATH, "x", INPUT), wrong)]
        load = asyncio.create_task(constant_load((host, int(port)), questions, clients, stop, pause_s))
        try:
            periods = await asyncio.to_thread(swap_all, agent, site, count)
        finally:
            stop.set()
            seen = await load
    return seen, periods


def swap_all(agent: AgentProcess, site: UpdateSite, count: int) -> list[Period]:
    """Bring releases one after the other, each with a rest before; return the periods."""
    periods = []
    for number in range(1, count + 1):
        rest = time.monotonic()
        time.sleep(STEADY_S)
        periods.append(Period(kind="steady", start=rest + 0.5, end=time.monotonic()))
        version = f"1.{number}.0"
        site.release(version, models=models(number))
        site.start(version, gates=Gates(soak_s=0.2))
        agent.bring()
        started = observed(agent, "a second worker", lambda workers: len(workers) > 1)
        ended = observed(agent, "the old worker's end", lambda workers: len(workers) == 1)
        periods.append(Period(kind="swap", start=started, end=ended))
        agent.wait_for("committed", version)
    return periods


def observed(agent: AgentProcess, what: str, holds: Callable[[tuple[int, ...]], bool]) -> float:
    """Return when something about the slot's workers was first seen to hold."""
    end = time.monotonic() + 40
    while time.monotonic() < end:
        if holds(agent.slot().workers):
            return time.monotonic()
        time.sleep(0.01)
    raise AssertionError(f"not seen: {what}\n{agent.log}")


INPUT = np.array([[0.9, -0.5, -0.5, 0.0]], np.float32)
RIGHT = (INPUT @ bundles.WEIGHTS).ravel()


def scale(number: int) -> float:
    """Return the factor of a release's answers, by which it can be told from all others."""
    return 1.0 + number / 64  # exact in float32


def models(number: int) -> list[tuple[str, bytes]]:
    """Return the variants of release 1.`number`.0."""
    return [(variant, bundles.scaled_model(scale(number))) for variant in ("fp32", "small")]


def wrong(reply: Reply) -> str | None:
    """Say what is wrong with an answer: not given, or not what the release it names would say."""
    if reply.status != 200:
        return f"status {reply.status}: {reply.body[:200]!r}"
    answer = json.loads(reply.body)
    version = answer["parameters"]["version"]
    number = 0 if version == "0.1.0" else int(version.split(".")[1])
    found = np.array(answer["outputs"][0]["data"], np.float32)
    right = np.allclose(found, RIGHT * np.float32(scale(number)), rtol=1e-6)
    return None if right else f"a wrong answer of {version}: {found}"


def samples(seen: Seen, periods: list[Period]) -> dict[str, list[list[float]]]:
    """Return the latencies in milliseconds of the requests that began in each period, by its kind."""
    found: dict[str, list[list[float]]] = {"steady": [], "swap": []}
    order = sorted(zip(seen.started, seen.seconds, strict=True))
    for period in periods:
        inside = [round(took * 1e3, 3) for start, took in order if period.start <= start < period.end]
        found[period.kind].append(inside)
    return found


def summary(seen: Seen, periods: list[Period]) -> dict[str, Any]:
    """Return counts and percentiles. A period's own p99 counts as one sample; the median over periods is compared."""
    by_kind = samples(seen, periods)
    table: dict[str, Any] = {"requests": len(seen.seconds), "failed": len(seen.problems)}
    for kind, runs in by_kind.items():
        full = [run for run in runs if run]
        together = [value for run in full for value in run]
        table[f"{kind}_periods"] = len(full)
        table[f"{kind}_requests"] = len(together)
        table[f"{kind}_p50_ms"] = percentile(together, 0.5)
        table[f"{kind}_p99_ms"] = percentile(together, 0.99)
        table[f"{kind}_p99_ms_median_of_periods"] = statistics.median(percentile(run, 0.99) for run in full)
    table["swap_s_median"] = statistics.median(period.end - period.start for period in periods if period.kind == "swap")
    table["p99_ratio"] = table["swap_p99_ms"] / table["steady_p99_ms"]
    return table


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
