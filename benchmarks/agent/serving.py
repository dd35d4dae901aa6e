"""What answering a request over HTTP costs: our whole agent beside what users would pick instead, in one run.

    python benchmarks/agent/serving.py --environments ~/.cache/edgewright-peers --out benchmarks/results/serving.json

The bundle is compressed from a task, and carries all that a user's does; the others serve the file of the variant that
answers first. The same client and the same bytes for all, over loopback: sixteen requests in turns, from its probe set.
All servers run from beginning to end; in
each round they are loaded one after the other for some seconds, in turns, so that what else the machine does falls on
all of them. CPU is that of the server's whole process tree, from /proc; the client's does not count. Reported are
medians over the rounds with their range, and the medians of the rounds' ratios to FastAPI and MLServer. Every sample
is kept. Peers are installed into environments of their own under `--environments`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.agent.http_load import Question, Reply, binary_request, constant_load, json_request, percentile
from benchmarks.agent.serving_servers import (
    AGENT,
    PEERS,
    SPEAK_BINARY,
    Started,
    environment_of,
    environment_of_agent,
    start_agent,
    start_peer,
)
from benchmarks.common.compressed_bundle import DEMO_TASK, compressed_bundle
from benchmarks.common.process_tree import cpu_seconds, memory_mb
from edge_bench.environment import environment
from edge_contracts.codec import plain
from edgewright.demo.broker import EmbeddedBroker

CLIENTS = (1, 8)
SAMPLES = 16
"""Different requests, asked in turns: their numbers differ, and in JSON their lengths."""

WARM_UP_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One line of the table: a server and the way it is asked."""

    name: str
    server: Started
    questions: list[Question]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", type=Path, default=DEMO_TASK, help="a task of one float32 input, or a bundle")
    parser.add_argument("--budget", help="of the compression, such as 60s; default: as the command has it")
    parser.add_argument("--environments", type=Path, required=True, help="where the peers are installed, kept")
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--starts", type=int, default=5, help="starts of every server that are timed")
    parser.add_argument("--seconds", type=float, default=3.0, help="of load for each server in each round")
    parser.add_argument("--out", type=Path, help="write all samples here as JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="edgewright-serving-") as name, EmbeddedBroker() as broker:
        serving = ServingRun(options, Path(name), broker.port)
        starts = serving.time_starts()
        samples = serving.measure()
    document = {
        "benchmark": "serving",
        "model": f"{serving.bundle.manifest.name}/{serving.bundle.manifest.variants[0].id}",
        "environment": plain(environment()),
        "seconds": options.seconds,
        "starts": starts,
        "samples": samples,
    }
    for line in table(document):
        print(line)
    if options.out is not None:
        options.out.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return 0


class ServingRun:
    """The model, its inputs and every contender."""

    def __init__(self, options: argparse.Namespace, folder: Path, broker_port: int) -> None:
        self._options, self._folder, self._broker = options, folder, broker_port
        self._python = {peer: environment_of(peer, options.environments) for peer in options.peers}
        self._python[AGENT] = environment_of_agent(options.environments)
        self.bundle = compressed_bundle(options.task, folder / "bundle", count=SAMPLES, budget=options.budget)
        self._model = self.bundle.manifest.name
        import onnxruntime  # after edge_agent, which turns its reports off

        session = onnxruntime.InferenceSession(str(self.bundle.model), providers=["CPUExecutionProvider"])
        self._input = session.get_inputs()[0].name
        self._samples = self.bundle.samples
        self._checks = [partial(wrong, np.asarray(session.run(None, {self._input: one})[0])) for one in self._samples]

    def time_starts(self) -> dict[str, list[dict[str, float]]]:
        """Start every contender some times, in turns, and load it for a moment while nothing else of it runs; return
        wall and CPU seconds to the first answer, and its memory: two of one environment would share their pages."""
        starts: dict[str, list[dict[str, float]]] = {}
        for number in range(self._options.starts):
            names = [AGENT, *self._options.peers]
            for name in names[number % len(names) :] + names[: number % len(names)]:
                started = self._start(name)
                try:
                    lane = Lane(name=f"{name} json", server=started, questions=self._questions(name, json_request))
                    asyncio.run(self._load(lane, CLIENTS[-1], WARM_UP_S))
                    memory = {f"{key}_mb": value for key, value in memory_mb(started.process.pid).items()}
                finally:
                    started.stop()
                starts.setdefault(name, []).append({"wall_s": started.wall_s, "cpu_s": started.cpu_s, **memory})
        return starts

    def measure(self) -> list[dict[str, Any]]:
        """Load every lane in every round; return one sample of each."""
        with ExitStack() as running:
            lanes = []
            for name in [AGENT, *self._options.peers]:
                server = self._start(name)
                running.callback(server.stop)
                lanes.append(Lane(name=f"{name} json", server=server, questions=self._questions(name, json_request)))
                if name in (AGENT, *SPEAK_BINARY):
                    questions = self._questions(name, binary_request)
                    lanes.append(Lane(name=f"{name} binary", server=server, questions=questions))
            for lane in lanes:
                asyncio.run(self._load(lane, 1, WARM_UP_S))
            samples = []
            for number in range(self._options.rounds):
                for lane in lanes[number % len(lanes) :] + lanes[: number % len(lanes)]:
                    for clients in CLIENTS:
                        sample = asyncio.run(self._load(lane, clients, self._options.seconds))
                        samples.append({"round": number, **sample})
            return samples

    def _start(self, name: str) -> Started:
        body = self._questions(name, json_request)[0][0].partition(b"\r\n\r\n")[2]
        if name == AGENT:
            folder = self.bundle.folder
            return start_agent(self._python[name], self._folder, folder, self._broker, (self._model, body))
        return start_peer(name, self._python[name], self.bundle.model, body)

    def _questions(self, name: str, form: Callable[[str, str, NDArray[np.float32]], bytes]) -> list[Question]:
        path = f"/v2/models/{self._model if name == AGENT else 'model'}/infer"
        requests = [form(path, self._input, array) for array in self._samples]
        return list(zip(requests, self._checks, strict=True))

    async def _load(self, lane: Lane, clients: int, seconds: float) -> dict[str, Any]:
        stop = asyncio.Event()
        pid = lane.server.process.pid
        before = cpu_seconds(pid)
        asyncio.get_running_loop().call_later(seconds, stop.set)
        seen = await constant_load(("127.0.0.1", lane.server.port), lane.questions, clients, stop)
        used = cpu_seconds(pid) - before
        if seen.problems:
            raise RuntimeError(f"{lane.name}: {seen.problems[0]}")
        return {
            "lane": lane.name,
            "clients": clients,
            "requests": len(seen.seconds),
            "cpu_us": used / len(seen.seconds) * 1e6,
            "rps": len(seen.seconds) / seconds,
            "p50_ms": percentile(seen.seconds, 0.5) * 1e3,
            "p99_ms": percentile(seen.seconds, 0.99) * 1e3,
        }


def wrong(right: NDArray[np.float32], reply: Reply) -> str | None:
    """Say what is wrong with an answer that should be `right`."""
    if reply.status != 200:
        return f"status {reply.status}: {reply.body[:200]!r}"
    if reply.head.lower().find(b"octet-stream") > 0:
        found = np.frombuffer(reply.body[-right.nbytes :], np.float32)
    else:
        found = np.array(json.loads(reply.body)["outputs"][0]["data"], np.float32)
    return None if np.allclose(found.ravel(), right.ravel(), atol=1e-4) else "a wrong answer"


def table(document: dict[str, Any]) -> list[str]:
    """Return the lines of a Markdown table of medians, ranges and ratios."""
    samples, starts = document["samples"], document["starts"]
    lines = [
        "| server | CPU µs a request, 1 client | 8 clients | x FastAPI | x MLServer | p50 / p99 ms, 8 clients "
        "| PSS MB | CPU s to the first answer | wall s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for lane in dict.fromkeys(sample["lane"] for sample in samples):
        one, eight = (_of(samples, lane, clients) for clients in CLIENTS)
        first = starts[lane.partition(" ")[0]]
        cells = [
            lane,
            _range([sample["cpu_us"] for sample in one], 0),
            _range([sample["cpu_us"] for sample in eight], 0),
            _ratio(samples, lane, "fastapi json"),
            _ratio(samples, lane, "mlserver json"),
            f"{_median(eight, 'p50_ms'):.1f} / {_median(eight, 'p99_ms'):.1f}",
            f"{_median(first, 'pss_mb'):.0f}",
            _range([sample["cpu_s"] for sample in first], 2),
            _range([sample["wall_s"] for sample in first], 2),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _of(samples: list[dict[str, Any]], lane: str, clients: int) -> list[dict[str, Any]]:
    return [sample for sample in samples if sample["lane"] == lane and sample["clients"] == clients]


def _median(samples: list[dict[str, Any]], key: str) -> float:
    return statistics.median(sample[key] for sample in samples)


def _range(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _ratio(samples: list[dict[str, Any]], lane: str, base: str) -> str:
    """Medians of the rounds' ratios, with 1 and with 8 clients."""
    ratios = []
    for clients in CLIENTS:
        pairs = zip(_of(samples, lane, clients), _of(samples, base, clients), strict=False)
        ratios.append(statistics.median([own["cpu_us"] / other["cpu_us"] for own, other in pairs] or [float("nan")]))
    return f"{ratios[0]:.2f}, {ratios[1]:.2f}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
