"""The fleet's side of a simulation: a fleet folder with two releases, a broker, depots and controllers, all of them the
real ones in processes of their own."""

from __future__ import annotations

import hashlib
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import psutil

from edge_agent.bundle import file_entry
from edge_contracts.manifest import (
    MANIFEST_NAME,
    Input,
    Lineage,
    Manifest,
    Output,
    SampleMapping,
    Variant,
    manifest_bytes,
)
from edge_contracts.state import Installed
from edge_fleet.releases.deltas.build import DeltaPlan
from edge_fleet.releases.release import release
from edge_fleet.rollouts.channel_state import Plan, finish
from edge_fleet.rollouts.plan import RolloutPlan
from edge_fleet.rollouts.rollout import change_rollout, start_rollout
from edge_fleet.signing.metadata import read_metadata
from edge_fleet.signing.workspace import FleetWorkspace, NewFleet, found
from edgewright.demo.broker import EmbeddedBroker, free_port
from edgewright.demo.stage import Stage, wait_for
from edgewright.simulator.errors import SimulationError
from edgewright.simulator.scenario import FleetScenario, chance_of

BEFORE = "0.0.1-before"
"""Version of the release that serves on every device when the simulation begins."""

BrokerKind = Literal["mosquitto", "embedded"]

MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
max_connections -1
max_queued_messages 100000
max_queued_bytes 0
set_tcp_nodelay true
persistence false
log_type error
log_type warning
{user}
"""
"""The controller's queue takes what ten thousand devices say at once; the rest is Mosquitto's default."""


def find_mosquitto() -> str | None:
    """Return the path of Mosquitto's program, None where it is not installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


class SimulatedSite(Stage):
    """See the module. `address` is a broker's that runs already; else one of `kind` is started."""

    def __init__(self, folder: Path, plan: RolloutPlan, scenario: FleetScenario, db: str | None) -> None:
        super().__init__(folder)
        self.plan, self.scenario = plan, scenario
        self.fleet_folder = folder / "fleet"
        self.protocol: Literal["auto", "5", "3.1.1"] = "auto"
        self.host, self.port = "127.0.0.1", 0
        self._embedded: EmbeddedBroker | None = None
        self._broker_pid: int | None = None
        self._db = db
        found(self.fleet_folder, NewFleet(tenant="simulation", families=(plan.model,)), datetime.now(UTC))
        self.fleet = FleetWorkspace(self.fleet_folder)
        self.stable = self._publish(BEFORE, 1000)
        self.candidate = self._publish(plan.version, scenario.release_bytes)
        now = datetime.now(UTC)
        before = Plan(channel=plan.channel, model=plan.model, version=BEFORE, name="before")
        start_rollout(self.fleet, before, now, db=db)
        change_rollout(self.fleet, plan.channel, finish, now, db=db)

    @property
    def root(self) -> Path:
        """The root that devices are given."""
        return self.fleet_folder / "root.json"

    @property
    def store_url(self) -> str:
        return self._db or self.fleet.store_url

    def signed_documents(self) -> int:
        """Return how often the role that signs channels has signed."""
        path = self.fleet.repository / "metadata"
        newest = max(path.glob("*.rollouts.json"), key=lambda file: int(file.name.split(".")[0]))
        return int(read_metadata(newest).signed.version)

    def start_broker(self, kind: BrokerKind) -> None:
        """Start a broker. Raises SimulationError if it is not installed."""
        if kind == "embedded":
            self._embedded = broker = EmbeddedBroker()
            broker.start()
            self.port, self.protocol = broker.port, broker.protocol  # type: ignore[assignment]
            self._broker_pid = broker.pid
            return
        program = find_mosquitto()
        if program is None:
            hint = "apt-get install mosquitto, or --broker HOST:PORT, or --broker embedded for some hundred devices"
            raise SimulationError("Mosquitto is not installed", subject="broker", hint=hint)
        self.port = free_port()
        config = self.folder / "mosquitto.conf"
        user = "user root" if Path("/proc/self").stat().st_uid == 0 else ""
        config.write_text(MOSQUITTO.format(port=self.port, user=user))
        self.start_process("broker", [program, "-c", str(config)], None)
        self._broker_pid = self.pid("broker")
        wait_for("the broker answers", self._answers, timeout_s=10)

    def use_broker(self, address: str) -> None:
        """Use a broker that runs already, at HOST:PORT. Raises SimulationError for what is no address."""
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise SimulationError("give HOST:PORT, mosquitto or embedded", subject="broker")
        self.host, self.port = host.strip("[]"), int(port)

    def start_services(self, depots: int, controllers: int, depot_devices: int) -> None:
        """Start depots, each of which serves `depot_devices` devices at once, and controllers; wait until they are
        subscribed."""
        broker = ("--broker", f"{self.host}:{self.port}", "--protocol", self.protocol)
        for number in range(depots):
            words = ("fleet", "depot", str(self.fleet_folder), *broker, "--devices", str(depot_devices))
            self.start(f"depot-{number}", *words, ready="depot ready")
        for number in range(controllers):
            self.start_controller(f"controller-{number}")

    def start_controller(self, name: str) -> None:
        """Start a controller, or start it again after its end."""
        broker = ("--broker", f"{self.host}:{self.port}", "--protocol", self.protocol)
        words = ("fleet", "controller", str(self.fleet_folder), *broker, "--db", self.store_url)
        self.start(name, *words, "--client-id", f"ew-{name}", ready="controller ready")

    def cpu_seconds(self, service: str) -> float | None:
        """Return the CPU time so far of all processes of a service: broker, depot or controller."""
        if service == "broker":
            return None if self._broker_pid is None else _cpu(self._broker_pid)
        pids = [self.pid(name) for name in self.names if name.startswith(f"{service}-")]
        return sum(_cpu(pid) for pid in pids)

    def __exit__(self, *failure: object) -> None:
        super().__exit__(*failure)  # type: ignore[arg-type]
        if self._embedded is not None:
            self._embedded.stop()

    def _answers(self) -> bool:
        import socket

        with socket.socket() as probe:
            probe.settimeout(0.2)
            return probe.connect_ex((self.host, self.port)) == 0

    def _publish(self, version: str, size: int) -> Installed:
        folder = self.folder / f"bundle-{version}"
        manifest = make_bundle(folder, self.plan.model, version, chance_of(self.scenario, version).randbytes(size))
        done = release(self.fleet, folder, datetime.now(UTC), DeltaPlan(releases=0))
        return Installed(version=manifest.version, manifest_sha256=done.manifest_sha256)


def make_bundle(folder: Path, model: str, version: str, data: bytes) -> Manifest:
    """Write a bundle whose one variant is `data`: validly formed, and nothing that could be loaded."""
    folder.mkdir(parents=True)
    file = folder / "model.onnx"
    file.write_bytes(data)
    manifest = Manifest(
        name=model,
        version=version,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        inputs=(Input(name="x", dtype="float32", shape=(-1, 1), sample=SampleMapping(dtype="float32")),),
        outputs=(Output(name="y", dtype="float32", shape=(-1, 1), kind="values"),),
        variants=(Variant(id="sim", file="model.onnx", format="onnx", size=len(data)),),
        lineage=Lineage(source_sha256=hashlib.sha256(data).hexdigest()),
        files=(file_entry(file, folder),),
    )
    (folder / MANIFEST_NAME).write_bytes(manifest_bytes(manifest))
    return manifest


def _cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
