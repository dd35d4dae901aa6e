"""Memory of the agent's processes, as the kernel accounts them, on this machine.

    python benchmarks/agent/memory.py --runs 5 --out benchmarks/results/agent-memory.json

Starts `edgewright agent run` against an embedded broker with one slot that serves a small model from a factory bundle,
asks the model 200 times, and reads RSS and PSS of every process from /proc. Medians of the runs; every sample is kept.
Targets: the supervisor at most 40 MB RSS, the whole agent at most 110 MB PSS.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common.compressed_bundle import DEMO_TASK, compressed_bundle
from edge_agent.inference.samples import read_arrays
from edgewright.demo.broker import EmbeddedBroker
from edgewright.demo.client import Client
from edgewright.demo.stage import Stage, run_json, wait_for

CONFIG = """\
[device]
id = "memory-{name}"
state = "{state}"
profile = "x86-gateway"

[broker]
host = "127.0.0.1"
port = {port}
protocol = "3.1.1"

[telemetry]
window_s = 1.0
"""
SLOT = """
[[slots]]
name = "har"
factory = "{bundle}"
http = "127.0.0.1:0"
"""
TARGETS_MB = {"supervisor_rss": 40.0, "agent_pss": 110.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--bundle", type=Path, help="a bundle of a one-input model; default: the demo's, compressed now"
    )
    parser.add_argument("--out", type=Path, help="write the samples as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgewright-memory-") as name:
        bundle = compressed_bundle(arguments.bundle or DEMO_TASK, Path(name) / "bundle").folder
        samples = [sample(Path(name), bundle, index) for index in range(arguments.runs)]
    medians = {key: statistics.median(one[key] for one in samples) for key in samples[0]}
    report = {"host": platform.platform(), "targets_mb": TARGETS_MB, "medians_mb": medians, "samples_mb": samples}
    for key, value in medians.items():
        spread = f"{min(one[key] for one in samples):.1f} to {max(one[key] for one in samples):.1f}"
        target = f"   target {TARGETS_MB[key]:g}" if key in TARGETS_MB else ""
        print(f"{key:<24}{value:8.1f} MB   ({spread}){target}")
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def sample(folder: Path, bundle: Path, index: int) -> dict[str, float]:
    """Return one sample of every figure, in megabytes (10^6 bytes)."""
    with EmbeddedBroker() as broker, Stage(folder) as stage:
        status = started(stage, f"run-{index}", SLOT.format(bundle=bundle), broker)
        status = wait_for("the model answers", lambda: ready(status["state"]))
        ask(status["slots"][0]["http"], bundle)
        processes = [memory(process) for process in tree(status["pid"])]
        return {
            "supervisor_rss": memory(status["pid"])["rss"],
            "agent_pss": sum(process["pss"] for process in processes),
            "agent_rss": sum(process["rss"] for process in processes),
        }


def started(stage: Stage, name: str, slot: str, broker: EmbeddedBroker) -> dict[str, Any]:
    """Start an agent and return its status once it runs."""
    state = stage.folder / name
    config = stage.folder / f"{name}.toml"
    config.write_text(CONFIG.format(name=name, state=state, port=broker.port) + slot)
    stage.start(name, "agent", "run", "--config", str(config))
    found = wait_for("the agent runs", lambda: running(state))
    return {**found, "state": state}


def running(state: Path) -> dict[str, Any] | None:
    """Return the status of a running, connected agent."""
    status: dict[str, Any] = run_json("agent", "status", "--state", str(state))
    return status if status.get("running") and status.get("broker_connected") else None


def ready(state: Path) -> dict[str, Any] | None:
    """Return the status once the slot serves."""
    status = running(state)
    return status if status and status["slots"][0].get("served_by") else None


def ask(address: str, bundle: Path) -> None:
    """Ask the model 200 times, so that lazy parts are loaded and buffers have grown."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    probe = read_arrays(bundle / manifest["probe"]["file"], what="probe")["input_0"]
    client = Client(address, manifest["name"], manifest["inputs"][0]["name"])
    for number in range(200):
        client.infer(probe[number % len(probe)][None])


def tree(pid: int) -> Iterator[int]:
    """Yield the supervisor and every process below it."""
    process = psutil.Process(pid)
    yield pid
    for child in process.children(recursive=True):
        yield child.pid


def memory(pid: int) -> dict[str, float]:
    """Return RSS and PSS of one process in megabytes (10^6 bytes)."""
    full = psutil.Process(pid).memory_full_info()
    return {"rss": full.rss / 1e6, "pss": full.pss / 1e6}


if __name__ == "__main__":
    main()
