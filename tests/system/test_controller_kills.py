"""A controller that is killed at fifty random instants of a rollout: no window is lost or doubled, and the rollout goes
the way it goes without, decision by decision."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.brokers.brokers import mosquitto_program

from edge_contracts.channel import Gates
from edge_fleet.database.rollouts import PlannedRollout, RolloutStore
from edge_fleet.database.telemetry import TelemetryStore
from edge_fleet.rollouts.plan import RolloutPlan, WaveStep
from edge_fleet.rollouts.planned import replay, start_planned
from edgewright.demo.stage import wait_for
from edgewright.simulator.rehearsal import HostProcess, Rehearsal, start_hosts
from edgewright.simulator.scenario import FleetScenario
from edgewright.simulator.site import SimulatedSite

pytestmark = pytest.mark.timeout(600)
DEVICES, KILLS = 40, 50
CONTROLLER = "controller-0"


def _plan() -> RolloutPlan:
    waves = tuple(WaveStep(percent=percent) for percent in (10.0, 40.0, 100.0))
    return RolloutPlan(
        channel="main", model="cam", version="1.0.0", steps=waves, observe_s=2.0, device=Gates(soak_s=1.0)
    )


def _ended(store: RolloutStore, name: str) -> PlannedRollout | None:
    (planned,) = [one for one in store.planned() if one.rollout == name]
    return planned if planned.status not in ("starting", "running") else None


def _kill_now_and_then(site: SimulatedSite, chance: random.Random) -> None:
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.0, 0.6))
        os.kill(site.pid(CONTROLLER), signal.SIGKILL)
        site.wait(CONTROLLER)
        site.start_controller(CONTROLLER)


def _stored_windows(site: SimulatedSite, host: HostProcess) -> None:
    """All windows that were sent are there, with every number."""
    host.end()
    sent = host.tally.windows
    with contextlib.closing(TelemetryStore(site.store_url)) as store:
        wait_for("every window is stored", lambda: store.count_messages("window") == sent, timeout_s=60)
        rows = store.devices()
        assert len(rows) == DEVICES
        for row in rows:
            assert row.boot_id is not None
            numbers = store.sequences(row.device, row.boot_id)
            assert numbers == list(range(len(numbers)))


def test_fifty_kills_lose_no_window_and_change_no_decision(tmp_path: Path) -> None:
    mosquitto_program()
    scenario = FleetScenario(window_s=1.0, trial_s=0.5, release_bytes=50_000, connects_per_s=100.0)
    asked = Rehearsal(devices=DEVICES, plan=_plan(), scenario=scenario, processes=1)
    with SimulatedSite(tmp_path, asked.plan, scenario, None) as site:
        site.start_broker("mosquitto")
        site.start_services(1, 1, 64)
        with start_hosts(asked, site) as (host,), contextlib.closing(RolloutStore(site.store_url)) as store:
            wait_for("the fleet is there", lambda: host.tally.connected == DEVICES, timeout_s=60)
            with contextlib.closing(TelemetryStore(site.store_url)) as seen:
                wait_for("it has reported", lambda: seen.count_reporting() == DEVICES, timeout_s=60)
            name = start_planned(site.fleet, asked.plan, datetime.now(UTC)).rollout
            assert name is not None
            _kill_now_and_then(site, random.Random(7))
            planned = wait_for("the rollout's end", lambda: _ended(store, name), timeout_s=120)
            assert planned.status == "finished"
            decisions = [made.action for made in store.decisions(name) if made.action != "stay"]
            assert decisions == ["next", "next", "finish"]
            assert all(one.same for one in replay(store, planned))
            evidence = [one.device for _, one in store.evidence(name) if one.gate == "failures"]
            assert sorted(evidence) == sorted(set(evidence))
            assert len(evidence) == DEVICES
            _stored_windows(site, host)
