"""A fleet under planned rollouts without a broker: devices that select themselves by the agent's own rules and report
straight into the database, and the controller's driver at a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.makers import fleets

from edge_agent.update.selection import wanted
from edge_contracts.channel import Channel
from edge_contracts.selection import Facts
from edge_contracts.state import Installed, Presence, ReportedState, SlotState
from edge_contracts.telemetry import TelemetryWindow
from edge_fleet.controller.rollout_driver import RolloutDriver
from edge_fleet.database.rollouts import RolloutStore
from edge_fleet.database.telemetry import TelemetryStore
from edge_fleet.releases.release import release
from edge_fleet.rollouts.channel_state import Plan, finish
from edge_fleet.rollouts.plan import RolloutPlan, parse_plan
from edge_fleet.rollouts.planned import start_planned
from edge_fleet.rollouts.rollout import change_rollout, read_channel, start_rollout

START = 1_800_000_000.0
TIME = "2027-01-15T08:00:00Z"
HEAD = 'channel = "stable"\nmodel = "har"\nversion = "1.1.0"\nobserve_s = 0\n'
WAVES = "".join(f'[[steps]]\nkind = "wave"\npercent = {percent}\n' for percent in (20, 60, 100))


def make_plan(steps: str = WAVES, head: str = "") -> RolloutPlan:
    """Return a plan of these steps; `head` comes before them."""
    return parse_plan((HEAD + head + steps).encode(), "plan.toml")


class PretendFleet:
    """See the module. Version 1.0.0 is stable on every device. `fails` says which devices reject 1.1.0."""

    def __init__(self, folder: Path, devices: int = 30, fails: Callable[[str], bool] = lambda _: False) -> None:
        self.workspace = fleets.make_fleet(folder, families=("har",))
        for version in ("1.0.0", "1.1.0"):
            bundle = fleets.make_bundle(folder / version, version=version, model=version.encode() * 100)
            release(self.workspace, bundle, fleets.NOW)
        start_rollout(self.workspace, Plan(channel="stable", model="har", version="1.0.0"), fleets.NOW)
        change_rollout(self.workspace, "stable", finish, fleets.NOW)
        self.url = self.workspace.store_url
        self.telemetry = TelemetryStore(self.url)
        self.rollouts = RolloutStore(self.url)
        self.devices = [f"dev-{number:03}" for number in range(devices)]
        self.fails = fails
        self.clock = START
        self.sequence = 0
        self.log: list[str] = []
        self.driver = self.new_driver()
        stable = self.channel().stable
        assert stable is not None
        self.stable = Installed(version=stable.version, manifest_sha256=stable.manifest_sha256)
        for device in self.devices:
            self.telemetry.ingest([Presence(device=device, boot_id="b", online=True)], self.now())
            self.report(device, SlotState(slot="main", channel="stable", state="committed", serving=self.stable))

    def new_driver(self, holder: str = "one") -> RolloutDriver:
        """Return a controller's driver as it is after a start."""
        return RolloutDriver(self.workspace, self.url, holder, self.log.append, lambda: self.clock)

    def start(self, plan: RolloutPlan) -> Channel:
        """Start a rollout under a plan."""
        from datetime import UTC, datetime

        return start_planned(self.workspace, plan, datetime.fromtimestamp(self.clock, UTC))

    def channel(self) -> Channel:
        """Return the channel's document."""
        found = read_channel(self.workspace.read(fleets.NOW), "stable")
        assert found is not None
        return found

    def report(self, device: str, *slots: SlotState, **facts: Any) -> None:
        """Store what a device reports of its slots."""
        self.sequence += 1
        known = {"agent_version": "1", "board": "pi-4", "architecture": "aarch64", "tags": {}} | facts
        report = ReportedState(
            device=device, boot_id="b", sequence=self.sequence, time=TIME, slots=slots, **known  # type: ignore[arg-type]
        )  # fmt: skip
        self.telemetry.ingest([report], self.now())

    def act(self, state: str | None = None) -> None:
        """Have every device do what the channel asks of it; `state` is what a candidate comes to, if not its end."""
        channel = self.channel()
        for device in self.devices:
            facts = Facts(device=device, board="pi-4", architecture="aarch64")
            wish = wanted(channel, facts)
            if wish is None:
                continue
            installed = Installed(version=wish.version, manifest_sha256=wish.manifest_sha256)
            if channel.candidate is None or wish != channel.candidate:
                self.report(device, SlotState(slot="main", channel="stable", state="committed", serving=installed))
                continue
            failed = self.fails(device)
            reached = state or ("rejected" if failed else "committed")
            slot = SlotState(
                slot="main", channel="stable", state=reached, reason="trial-latency" if reached == "rejected" else None,
                serving=self.stable if failed else installed, candidate=installed, rollout=channel.rollout,
            )  # type: ignore[arg-type]  # fmt: skip
            self.report(device, slot)

    def window(self, device: str, version: str, *, model: str = "har", **values: Any) -> None:
        """Store a telemetry window of a device's slot of that model."""
        self.sequence += 1
        window = TelemetryWindow(
            device=device,
            boot_id="b",
            sequence=self.sequence,
            start=TIME,
            end=TIME,
            slot=model,
            model=model,
            version=version,
            **values,
        )
        self.telemetry.ingest([window], self.now())

    def look(self, times: int = 1, seconds: float = 2.0) -> None:
        """Let time pass and the driver look."""
        for _ in range(times):
            self.clock += seconds
            self.driver.look(self.clock)

    def run(self, rounds: int = 12) -> None:
        """Let devices and driver go on until nothing is planned to happen any more."""
        for _ in range(rounds):
            self.act()
            self.look(2)
            if not self.rollouts.planned(status=("starting", "running")):
                return

    def now(self) -> str:
        """Return the present as the database has it."""
        from datetime import UTC, datetime

        return datetime.fromtimestamp(self.clock, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def status(self) -> str:
        """Return how the newest planned rollout is."""
        return self.rollouts.planned()[-1].status

    def close(self) -> None:
        """Close the databases."""
        self.driver.close()
        self.rollouts.close()
        self.telemetry.close()
