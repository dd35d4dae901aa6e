"""What a controller's look at a running rollout costs, by the size of the fleet and by what devices reported since.

    PYTHONPATH=. python benchmarks/updates/look_cost.py --out benchmarks/results/look-cost.json

The controller's own driver over SQLite, in a wave of half the fleet, most of which has committed: CPU of this process
for the first look after a start, which reads what is stored, for a look when nothing was reported since, and for one
when ten devices have begun. Medians with the least and the most; every sample is kept.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.updates.transfer import MODEL, released
from edge_contracts.selection import bucket
from edge_contracts.state import Installed, Presence, ReportedState, SlotState
from edge_fleet.controller.rollout_driver import RolloutDriver
from edge_fleet.database.rollouts import RolloutStore
from edge_fleet.database.telemetry import TelemetryStore
from edge_fleet.rollouts.plan import RolloutPlan, WaveStep
from edge_fleet.rollouts.planned import start_planned
from edge_fleet.signing.workspace import FleetWorkspace

CHANNEL, VERSION, REPORTING, LOOKS = "look", "1.0.0", 10, 15
PLAN = RolloutPlan(
    channel=CHANNEL,
    model=MODEL,
    version=VERSION,
    steps=(WaveStep(percent=50.0, at_least=1), WaveStep(percent=100.0)),
    observe_s=0.0,
)


class Fleet:
    """A fleet whose devices report straight into the database."""

    def __init__(self, folder: Path, devices: int) -> None:
        self.workspace = FleetWorkspace(released(folder, 1000))
        self._telemetry = TelemetryStore(self.workspace.store_url)
        self._sequence = 0
        self._names = [f"device-{number:06}" for number in range(devices)]
        self.report(self._names, "idle")
        channel = start_planned(self.workspace, PLAN, datetime.now(UTC))
        assert channel.candidate is not None
        assert channel.rollout is not None
        self.rollout = channel.rollout
        self.release = Installed(version=VERSION, manifest_sha256=channel.candidate.manifest_sha256)
        self.in_order = sorted(self._names, key=lambda name: bucket(self.rollout, name))

    def report(self, devices: Iterable[str], state: str) -> None:
        """Store what devices say of their one slot."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        arrivals: list[Any] = []
        for name in devices:
            self._sequence += 1
            given = {} if state == "idle" else {"candidate": self.release, "rollout": self.rollout}
            slot = SlotState(slot="main", channel=CHANNEL, state=state, **given)  # type: ignore[arg-type]
            arrivals += [
                Presence(device=name, boot_id="b", online=True),
                ReportedState(
                    device=name,
                    boot_id="b",
                    sequence=self._sequence,
                    time=now,
                    slots=(slot,),
                    agent_version="1",
                    board="pi-4",
                    architecture="aarch64",
                    tags={"site": name[-2:]},
                ),
            ]
        for first in range(0, len(arrivals), 1000):
            self._telemetry.ingest(arrivals[first : first + 1000], now)


class Looks:
    """A driver, and what its looks cost."""

    def __init__(self, fleet: Fleet) -> None:
        self._driver = RolloutDriver(fleet.workspace, fleet.workspace.store_url, "bench", self._failed)
        self._now = 0.0

    def _failed(self, text: str) -> None:
        if text.startswith("rollouts:"):
            raise SystemExit(text)

    def cost(self) -> float:
        """Look once; return the milliseconds of CPU it took."""
        self._now += 2.0
        began = time.process_time()
        self._driver.look(self._now)
        return (time.process_time() - began) * 1000.0

    def close(self) -> None:
        """Close the database."""
        self._driver.close()


def measure(devices: int) -> dict[str, Any]:
    """Return the samples of one size of fleet, in milliseconds."""
    with tempfile.TemporaryDirectory(prefix="edgewright-look-") as name:
        fleet = Fleet(Path(name), devices)
        begun = devices // 2 - LOOKS * REPORTING
        early = Looks(fleet)
        early.cost()
        fleet.report(fleet.in_order[:begun], "committed")
        early.cost()
        early.close()
        looks = Looks(fleet)
        found = {"first": [looks.cost()], "nothing": [], "ten": []}
        rest = iter(fleet.in_order[begun:])
        for _ in range(LOOKS):
            found["nothing"].append(looks.cost())
            fleet.report([next(rest) for _ in range(REPORTING)], "active")
            found["ten"].append(looks.cost())
        looks.close()
        store = RolloutStore(fleet.workspace.store_url)
        (planned,) = store.planned()
        store.close()
        assert planned.status == "running", planned.status
    return {"devices": devices, "samples_ms": found}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[500, 2000, 10000])
    parser.add_argument("--out", type=Path, help="write the samples as JSON")
    options = parser.parse_args(arguments)
    sizes = []
    for devices in options.devices:
        sizes.append(one := measure(devices))
        for what, samples in one["samples_ms"].items():
            one.setdefault("medians_ms", {})[what] = statistics.median(samples)
            spread = f"{min(samples):.1f} to {max(samples):.1f}"
            print(f"{devices:>7} devices  {what:<8} {statistics.median(samples):8.1f} ms  ({spread})", flush=True)
    if options.out:
        report = {"host": platform.platform(), "python": platform.python_version(), "sizes": sizes}
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
