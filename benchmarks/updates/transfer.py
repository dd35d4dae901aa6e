"""How fast a device fetches a bundle over MQTT, and at what cost, on loopback.

    python benchmarks/updates/transfer.py --megabytes 20 --runs 5 --out benchmarks/results/transfer.json

Starts a broker (Mosquitto when installed, else the embedded one) and a depot without pacing, and runs the agent's own
updater process again and again on an empty device: metadata, manifest, chunks of 64 KiB by QoS 0, every chunk verified,
every file synced. Clock and `transfer_cpu_s` run from the first chunk's request to the durable rename; the whole run's
figures and the peak memory are the updater process's, from the kernel's own accounting. Medians; every sample is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec
import psutil

from edge_agent.bundle import file_entry
from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.ipc.updater import Fetching, SlotPlan, Stored, UpdatePlan, parse_from_updater
from edge_contracts.limits import MIB
from edge_contracts.manifest import MANIFEST_NAME, Input, Lineage, Manifest, Output, SampleMapping, Variant
from edge_contracts.manifest import manifest_bytes as encoded
from edge_fleet.releases.release import release
from edge_fleet.rollouts.channel_state import Plan
from edge_fleet.rollouts.rollout import start_rollout
from edge_fleet.signing.workspace import FleetWorkspace, NewFleet, found
from edgewright.demo.broker import EmbeddedBroker, free_port
from edgewright.demo.stage import Stage

MODEL = CHANNEL = "transfer"
TARGETS = {"megabytes_per_s": "at least 30", "transfer_cpu_s": "at most 0.4 for 20 MB", "peak_rss_mb": "at most 60"}
PROFILE = """\
name = "bench"
engines = ["onnxruntime"]

[board]
description = "the host of this benchmark"
architecture = "{machine}"
cores = 1
memory_mb = 4096
source = "this host"

[model]
disk_mb = 4096

[network]
daily_mb = 100000
window = {window}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=20, help="size of the bundle's one file, in MB of 10^6 bytes")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--window", type=int, default=16, help="chunks in flight (profile network.window)")
    parser.add_argument("--out", type=Path, help="write the samples as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgewright-transfer-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        kind, port = stack.enter_context(broker(folder))
        fleet = published(folder, arguments.megabytes * 1_000_000)
        stage = stack.enter_context(Stage(folder))
        rates = ("--device-rate", "10000", "--total-rate", "10000")
        stage.start("depot", "fleet", "depot", str(fleet), "--broker", f"127.0.0.1:{port}", *rates, ready="depot ready")
        profile = folder / "bench.toml"
        profile.write_text(PROFILE.format(machine=platform.machine(), window=arguments.window))
        samples = [fetched(folder, fleet, profile, port, arguments.megabytes) for _ in range(arguments.runs)]
    medians = {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}
    for key, value in medians.items():
        spread = f"{min(one[key] for one in samples):.2f} to {max(one[key] for one in samples):.2f}"
        print(f"{key:<18}{value:8.2f}   ({spread})   target {TARGETS.get(key, '-')}")
    if arguments.out:
        report = {
            "host": platform.platform(),
            "broker": kind,
            "megabytes": arguments.megabytes,
            "window": arguments.window,
            "medians": medians,
            "samples": samples,
        }
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[tuple[str, int]]:
    """Run Mosquitto, or the embedded broker where it is not installed; yield its kind and port."""
    program = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
    if program is None:
        with EmbeddedBroker() as embedded:
            yield "rumqttd", embedded.port
        return
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nset_tcp_nodelay true\n")
    with subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL) as process:
        time.sleep(0.5)
        try:
            yield "mosquitto", port
        finally:
            process.terminate()


def published(folder: Path, size: int) -> Path:
    """Make a fleet whose only release is one file of `size` random bytes, rolled out to everybody."""
    fleet = released(folder, size)
    start_rollout(FleetWorkspace(fleet), Plan(channel=CHANNEL, model=MODEL, version="1.0.0"), datetime.now(UTC))
    return fleet


def released(folder: Path, size: int) -> Path:
    """Make a fleet whose only release is one file of `size` random bytes."""
    bundle = folder / "bundle"
    bundle.mkdir()
    (bundle / "weights.onnx").write_bytes(os.urandom(size))
    manifest = Manifest(
        name=MODEL,
        version="1.0.0",
        created="2026-01-01T00:00:00Z",
        inputs=(Input(name="x", dtype="float32", shape=(-1, 1), sample=SampleMapping(dtype="float32")),),
        outputs=(Output(name="y", dtype="float32", shape=(-1, 1)),),
        variants=(Variant(id="only", file="weights.onnx", format="onnx", size=size),),
        lineage=Lineage(source_sha256=sha256(b"").hexdigest()),
        files=(file_entry(bundle / "weights.onnx", bundle),),
    )
    (bundle / MANIFEST_NAME).write_bytes(encoded(manifest))
    fleet, now = folder / "fleet", datetime.now(UTC)
    found(fleet, NewFleet(families=(MODEL,)), now)
    release(FleetWorkspace(fleet), bundle, now)
    return fleet


def fetched(folder: Path, fleet: Path, profile: Path, port: int, megabytes: int) -> dict[str, float]:
    """Run one updater on an empty device and return what it took. Raises SystemExit if it did not store the release."""
    state = folder / "device"
    shutil.rmtree(state, ignore_errors=True)
    for name in ("releases", "downloads", "slots", "tuf", "cache"):
        (state / name).mkdir(parents=True)
    plan = UpdatePlan(
        state=str(state),
        root=str(fleet / "root.json"),
        device="bench",
        tenant="default",
        profile=str(profile),
        slots=(SlotPlan(slot="main", channel=CHANNEL),),
        broker=BrokerConfig(host="127.0.0.1", port=port),
    )
    words = [sys.executable, "-m", "edge_agent.updater", msgspec.json.encode(plan).decode()]
    began = time.monotonic()
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    first = stored = before = after = 0.0
    for line in process.stdout:
        message = parse_from_updater(line)
        if isinstance(message, Fetching) and not first:
            first, before = time.monotonic(), cpu_seconds(process.pid)
        elif isinstance(message, Stored):
            stored, after = time.monotonic(), cpu_seconds(process.pid)
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0  # it was reaped here, for the sake of its accounting
    if not stored:
        raise SystemExit("the updater did not store the release")
    return {
        "megabytes_per_s": megabytes / (stored - first),
        "whole_run_s": stored - began,
        "transfer_cpu_s": after - before,
        "whole_run_cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_rss_mb": usage.ru_maxrss * 1024 / MIB,
    }


def cpu_seconds(pid: int) -> float:
    """Return the CPU time a running process has used so far."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    main()
