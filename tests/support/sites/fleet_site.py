"""A whole fleet of one device for system tests: a real broker, a fleet folder, a depot, an agent, all real processes.

with Site(tmp_path, broker) as site:
    site.publish(bundle); site.start_depot(); site.start_agent()
    site.roll_out("1.0.0"); site.wait_for_state("committed", "1.0.0")
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from support.brokers.brokers import EmbeddedBroker, Mosquitto
from support.makers import bundles

from edge_agent.cli.status import stored_status
from edge_agent.ipc.control import ControlRequest, ask_agent
from edge_agent.storage.state_dir import StateFolder
from edge_contracts.channel import Gates
from edge_contracts.codec import plain
from edge_contracts.errors import EdgewrightError
from edge_fleet.releases.release import release
from edge_fleet.rollouts.channel_state import Plan, abort, finish
from edge_fleet.rollouts.rollout import change_rollout, read_channel, start_rollout
from edge_fleet.signing.workspace import FleetWorkspace, NewFleet, found
from edgewright.demo.client import Client, DemoAnswer
from edgewright.demo.stage import Stage, wait_for

MODEL = "linear"
CHANNEL = "test"

AGENT = """\
[device]
id = "site-device"
profile = "{profile}"
state = "{state}"

[broker]
host = "127.0.0.1"
port = {port}
protocol = "{protocol}"
tls = {tls}

[trust]
root = "{root}"

[updates]
poll_s = {poll_s}
timeout_s = 2.0

[telemetry]
window_s = 1.0

[[slots]]
name = "main"
channel = "test"
http = "127.0.0.1:0"
{factory}
"""


class Site(Stage):
    """See the module. `state` may be put elsewhere before the agent starts, for example on a small disk."""

    def __init__(self, folder: Path, broker: Mosquitto | EmbeddedBroker) -> None:
        super().__init__(folder)
        self.broker = broker
        self.fleet = folder / "fleet"
        self.state = folder / "device"
        self.config = folder / "agent.toml"
        self.root = folder / "installed-root.json"
        self.poll_s = 2.0
        self.secured = False
        self.factory: Path | None = None
        self.profile = "x86-gateway"
        self.depot_options: tuple[str, ...] = ()
        found(self.fleet, NewFleet(families=(MODEL,)), datetime.now(UTC))
        self.install_root(self.fleet)

    @property
    def repository(self) -> Path:
        return self.fleet / "repository"

    # release engineer

    def bundle(self, version: str, **options: Any) -> Path:
        """Make a bundle of that version (see bundle_maker) and return its folder."""
        folder = self.folder / f"bundle-{version}"
        bundles.make_bundle(folder, name=MODEL, version=version, **options)
        return folder

    def publish(self, version: str, **options: Any) -> None:
        """Make, sign and publish a release."""
        release(FleetWorkspace(self.fleet), self.bundle(version, **options), datetime.now(UTC))

    def roll_out(self, version: str, soak_s: float = 0.5) -> None:
        """Offer a release to the device; a rollout that is still running is finished or aborted first."""
        fleet, now = FleetWorkspace(self.fleet), datetime.now(UTC)
        channel = read_channel(fleet.read(now), CHANNEL)
        if channel is not None and channel.candidate is not None:
            change = finish if self.slot()["state"] == "committed" else abort
            change_rollout(fleet, CHANNEL, change, now)
        start_rollout(fleet, Plan(channel=CHANNEL, model=MODEL, version=version, gates=Gates(soak_s=soak_s)), now)

    def start_depot(self, repository: Path | None = None, name: str = "depot") -> None:
        """Start a depot on the fleet's repository, or on an attacker's."""
        folder = str(repository or self.fleet)
        options = (*self.service_options("depot"), *self.depot_options)
        self.start(name, "fleet", "depot", folder, *options, ready="depot ready")

    def start_controller(self) -> None:
        """Start the process that stores telemetry."""
        words = ("fleet", "controller", str(self.fleet), *self.service_options("controller"))
        self.start("controller", *words, ready="controller ready")

    def serve_only(self, repository: Path) -> None:
        """From now on only an attacker's depot answers, from its own repository."""
        if self.runs("depot"):
            self.stop("depot")
        self.start_depot(repository, "attacker")

    def newest_timestamp(self) -> int:
        """Return the version of the fleet's own newest timestamp."""
        signed = json.loads((self.repository / "metadata" / "timestamp.json").read_bytes())["signed"]
        return int(signed["version"])

    def service_options(self, name: str) -> tuple[str, ...]:
        """Return how a service of that name connects."""
        return ("--broker", f"127.0.0.1:{self.broker.port}", "--protocol", self.broker.protocol)

    # device

    def install_root(self, fleet: Path) -> None:
        """Give the device a fleet's present root to start from."""
        shutil.copy(fleet / "root.json", self.root)

    def start_agent(self, breakpoint_at: str | None = None) -> None:
        """Start the agent and wait until it runs; with `breakpoint_at` it will wait in that state."""
        self.write_config()
        words = ("agent", "run", "--config", str(self.config))
        if breakpoint_at is None:
            self.start("agent", *words)
            wait_for("the agent runs", self.running)
            return
        script = str(Path(__file__).with_name("breakpoint_agent.py"))
        self.start_process("agent", [sys.executable, script, breakpoint_at, str(self.folder), *words])

    def write_config(self) -> None:
        """Write the agent's configuration."""
        self.config.write_text(
            AGENT.format(
                state=self.state,
                port=self.broker.port,
                protocol=self.broker.protocol,
                root=self.root,
                poll_s=self.poll_s,
                profile=self.profile,
                tls=str(self.secured).lower(),
                factory="" if self.factory is None else f'factory = "{self.factory}"',
            )
        )

    def reached(self) -> None:
        """Wait until the agent stands at its breakpoint."""
        wait_for("the breakpoint", (self.folder / "reached").exists, timeout_s=40)

    def go_on(self) -> None:
        """Let the agent go on from its breakpoint."""
        (self.folder / "go").touch()

    def status(self) -> dict[str, Any]:
        """Return what `agent status --json` says."""
        state = StateFolder(self.state)
        reply = ask_agent(state, ControlRequest(ask="status"), timeout_s=10)
        found: dict[str, Any] = plain(stored_status(state) if reply is None else reply.status)
        return found

    def running(self) -> bool:
        """Return whether an agent answers."""
        with contextlib.suppress(EdgewrightError):
            return bool(self.status()["running"])
        return False

    def slot(self) -> dict[str, Any]:
        """Return the status of the slot."""
        slot: dict[str, Any] = self.status()["slots"][0]
        return slot

    def wait_for_state(self, state: str, version: str, timeout_s: float = 40.0) -> dict[str, Any]:
        """Wait until the slot is in `state` with the candidate `version` and return its status."""

        def probe() -> dict[str, Any] | None:
            slot = self.slot()
            candidate = slot.get("candidate") or {}
            return slot if slot["state"] == state and candidate.get("version") == version else None

        return wait_for(f"{version} is {state}", probe, timeout_s=timeout_s)

    def wait_for_refusal(self, reasons: set[str]) -> dict[str, Any]:
        """Wait for a refusal with one of these reasons and return it."""

        def probe() -> dict[str, Any] | None:
            found: list[dict[str, Any]] = self.status()["refusals"]
            return next((entry for entry in found if entry["reason"] in reasons), None)

        return wait_for(f"a refusal for one of {sorted(reasons)}", probe, timeout_s=40)

    def client(self) -> Client:
        """Return a client of the slot's present address."""
        return Client(self.slot()["http"], MODEL, "x")

    def ask(self) -> DemoAnswer:
        """ControlRequest one sample; the right class must come back. Raises OSError or RuntimeError if nothing does."""
        x, y = bundles.samples(1, seed=3)
        answer = self.client().infer(x)
        assert answer.scores.argmax() == y[0]
        return answer

    def serves(self, version: str) -> None:
        """Wait until `version` answers, and answers rightly."""

        def probe() -> bool:
            with contextlib.suppress(RuntimeError, http.client.HTTPException):
                return f":{version}/" in self.ask().served_by
            return False

        wait_for(f"{version} serves", probe, timeout_s=30)

    def kill(self, what: str) -> bool:
        """SIGKILL the agent's `supervisor`, or its children running edge_agent.`worker` or `updater`. Returns whether
        there was one."""
        supervisor = psutil.Process(self.pid("agent"))
        if what == "supervisor":
            supervisor.kill()
            self.wait("agent")
            return True
        found = False
        for child in supervisor.children():
            with contextlib.suppress(psutil.NoSuchProcess):  # a trial may be over by now
                if f"edge_agent.{what}" in " ".join(child.cmdline()):
                    child.kill()
                    found = True
        return found


def glitch(value: float) -> np.ndarray[Any, Any]:
    """Return one sample whose largest number is `value`, for the models of bundle_maker that misbehave then."""
    x, _ = bundles.samples(1, seed=3)
    x[0, 0] = value
    return x
