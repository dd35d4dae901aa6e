"""Planned rollouts over a broker: three agents, a depot and a controller, all real processes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.brokers.brokers import BROKERS, make_broker
from support.makers import bundles
from support.sites.fleet_site import AGENT, MODEL, Site

from edge_contracts.state import SlotState
from edge_fleet.database.rollouts import RolloutStore
from edge_fleet.database.telemetry import TelemetryStore
from edge_fleet.signing.workspace import FleetWorkspace
from edgewright.demo.stage import run, run_json, wait_for

pytestmark = pytest.mark.timeout(180)

PLAN = f"""\
channel = "test"
model = "{MODEL}"
version = "VERSION"
observe_s = 1.0
first_devices = 1
[device]
soak_s = 0.5
[[steps]]
kind = "wave"
count = 1
[[steps]]
kind = "approval"
who = "anna"
[[steps]]
kind = "wave"
count = 2
[[steps]]
kind = "wave"
percent = 100
"""


class ThreeDevices(Site):
    """A site whose fleet has three devices, which run 1.0.0."""

    names = ("one", "two", "three")

    def start_agents(self) -> None:
        """Start the agents."""
        for name in self.names:
            config = self.folder / f"{name}.toml"
            text = AGENT.format(
                state=self.folder / name, port=self.broker.port, protocol=self.broker.protocol, root=self.root,
                poll_s=1.0, profile=self.profile, tls="false", factory="",
            )  # fmt: skip
            config.write_text(text.replace("site-device", name))
            self.start(f"agent-{name}", "agent", "run", "--config", str(config))

    def slots(self) -> dict[str, SlotState]:
        """Return the slot of every device as the fleet knows it."""
        with contextlib.closing(TelemetryStore(FleetWorkspace(self.fleet).store_url)) as store:
            return {row.device: row.reported.slots[0] for row in store.devices() if row.reported and row.reported.slots}

    def serving(self, version: str) -> set[str]:
        """Return the devices that serve a version, and are done with everything."""
        done = {name: slot for name, slot in self.slots().items() if slot.state in ("committed", "rolled_back")}
        return {name for name, slot in done.items() if slot.serving is not None and slot.serving.version == version}

    def plan(self, version: str) -> Path:
        """Write the plan of a version."""
        file = self.folder / f"plan-{version}.toml"
        file.write_text(PLAN.replace("VERSION", version))
        return file

    def begin(self, version: str) -> str:
        """Start the planned rollout of a version and return its name."""
        started = run_json("fleet", "rollout", "start", str(self.fleet), "--plan", str(self.plan(version)))
        return str(started["rollout"])

    def decided(self) -> str:
        """Return the controller's last word on the newest rollout."""
        with contextlib.closing(RolloutStore(FleetWorkspace(self.fleet).store_url)) as store:
            planned = store.planned()[-1]
            made = store.decisions(planned.rollout)
            return f"{planned.status}: {made[-1].why if made else ''}"

    def why(self, name: str) -> list[str]:
        """Return the sentences of `fleet why`."""
        return [one["text"] for one in run_json("fleet", "why", str(self.fleet), name)["sentences"]]


@pytest.fixture(name="three", params=BROKERS)
def _three(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ThreeDevices]:
    with make_broker(request.param, tmp_path) as broker, ThreeDevices(tmp_path, broker) as site:
        site.publish("1.0.0")
        site.start_depot()
        site.start_controller()
        site.start_agents()
        run("fleet", "rollout", "start", str(site.fleet), "--model", MODEL, "--version", "1.0.0", "--channel", "test",
            "--soak", "0.5")  # fmt: skip
        wait_for("all serve 1.0.0", lambda: len(site.serving("1.0.0")) == 3, timeout_s=60)
        run("fleet", "rollout", "finish", str(site.fleet), "--channel", "test")
        yield site


def test_a_good_release_is_promoted_wave_by_wave_over_a_killed_controller(three: ThreeDevices) -> None:
    site = three
    site.publish("1.1.0")
    name = site.begin("1.1.0")
    waits = wait_for(
        "the approval", lambda: next((line for line in site.why(name) if "waits for" in line), None), timeout_s=60
    )
    assert "approval of anna" in waits
    assert len(site.serving("1.1.0")) == 1
    os.kill(site.pid("controller"), signal.SIGKILL)
    site.wait("controller")
    run("fleet", "rollout", "approve", str(site.fleet), "--who", "anna")
    site.start_controller()
    wait_for("all serve 1.1.0", lambda: len(site.serving("1.1.0")) == 3, timeout_s=90)
    wait_for("1.1.0 is stable", lambda: _stable(site) == "1.1.0", timeout_s=30)
    replayed = run_json("fleet", "rollout", "replay", str(site.fleet), "--rollout", name)
    assert replayed["differing"] == 0
    assert [one["action"] for one in replayed["decisions"] if one["action"] != "stay"] == [
        "next",
        "next",
        "next",
        "finish",
    ]


def test_a_bad_release_is_halted_and_every_device_goes_back(three: ThreeDevices) -> None:
    site = three
    site.publish("1.2.0", models=[("fp32", bundles.wrong_model())])
    name = site.begin("1.2.0")
    wait_for("it is stopped", lambda: site.decided().startswith("stopped"), timeout_s=60)
    reason = next(line for line in site.why(name) if " failed: " in line)
    assert "quality" in reason
    explained = run_json("fleet", "why", str(site.fleet), reason.split()[0])["sentences"][-1]
    assert "rejected 1.2.0" in explained["text"]
    assert "trial> fp32: quality" in explained["log"]
    assert site.serving("1.2.0") == set()
    assert {slot.serving.version for slot in site.slots().values() if slot.serving} == {"1.0.0"}
    channel = run_json("fleet", "rollout", "status", str(site.fleet))["channel"]
    assert channel["candidate"] is None
    assert len(channel["blocked"]) == 1


def _stable(site: ThreeDevices) -> str | None:
    channel = run_json("fleet", "rollout", "status", str(site.fleet))["channel"]
    return None if channel["stable"] is None else str(channel["stable"]["version"])
