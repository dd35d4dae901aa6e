"""A changed model over a real broker: by a delta, whole when the delta is spoiled, and on from where it was killed."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.brokers.brokers import EmbeddedBroker
from support.brokers.fault_proxy import FaultProxy
from support.makers.deltas import ballasted
from support.sites.fleet_site import MODEL, Site
from support.sites.update_site import UpdateSite

from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.ipc.updater import DeltaUsed, FromUpdater, Stored, parse_from_updater
from edge_agent.storage.audit_log import audit_files
from edge_contracts.delta import Deltas, deltas_target, parse_deltas
from edge_fleet.releases.release import blob_path, releases_role
from edge_fleet.signing.workspace import FleetWorkspace
from edgewright.demo.stage import Stage, run_json, wait_for

pytestmark = pytest.mark.timeout(120)

SIZE = 2_000_000


def update(site: Site) -> dict[str, Any]:
    """Serve 1.0.0, then bring 1.1.0, whose weights moved a little; return the slot's status."""
    site.publish("1.0.0", models=[("fp32", ballasted(size=SIZE))])
    site.publish("1.1.0", models=[("fp32", ballasted(0.01, size=SIZE))])
    site.start_agent()
    site.roll_out("1.0.0")
    site.wait_for_state("committed", "1.0.0")
    site.roll_out("1.1.0")
    return site.wait_for_state("committed", "1.1.0")


def listed(fleet: FleetWorkspace, version: str) -> Deltas:
    """Return the signed list of deltas towards a release."""
    repository = fleet.read(datetime.now(UTC))
    data = repository.read_target(releases_role(MODEL), deltas_target(MODEL, version))
    assert data is not None
    return parse_deltas(data)


def told(site: Site, event: str) -> list[dict[str, Any]]:
    """Return what the device's audit log tells of one kind of event."""
    lines = [line for path in audit_files(site.state / "audit.jsonl") for line in path.read_bytes().splitlines()]
    return [entry["detail"] for entry in map(msgspec.json.decode, lines) if entry["event"] == event]


def test_changed_model_arrives_as_a_delta_and_the_fleet_sees_what_it_saved(any_site: Site) -> None:
    site = any_site
    site.start_depot()
    site.start_controller()
    slot = update(site)
    assert slot["saved"] > 0.97 * SIZE
    site.serves("1.1.0")
    (detail,) = told(site, "delta-used")
    assert detail["fetched"] < 0.03 * SIZE
    assert detail["spared"] == slot["saved"]
    assert msgspec.json.decode((site.state / "traffic.json").read_bytes())["used"] < 1.1 * SIZE

    def reported() -> bool:
        (device,) = run_json("fleet", "devices", str(site.fleet))["devices"]
        return bool(device["slots"][0]["saved"] == slot["saved"])

    wait_for("the fleet knows", reported)


def test_spoiled_delta_is_told_of_and_the_model_arrives_whole(site: Site) -> None:
    site.start_depot()
    site.publish("0.9.0", models=[("fp32", ballasted(size=SIZE))])
    site.publish("1.0.0", models=[("fp32", ballasted(0.01, size=SIZE))])
    for delta in listed(FleetWorkspace(site.fleet), "1.0.0").deltas:
        place = blob_path(site.repository, delta.sha256)
        place.write_bytes(b"spoiled" + place.read_bytes()[7:])
    site.start_agent()
    site.roll_out("0.9.0")
    site.wait_for_state("committed", "0.9.0")
    site.roll_out("1.0.0")
    assert site.wait_for_state("committed", "1.0.0")["saved"] == 0
    assert [detail["reason"] for detail in told(site, "delta-unused")] == ["damaged"]
    site.serves("1.0.0")


def run_updater(site: UpdateSite, port: int, ends_after_s: float | None) -> list[FromUpdater]:
    """Run an updater process over the broker at `port`, killed after some time; return what it said."""
    broker = BrokerConfig(host="127.0.0.1", port=port, protocol="3.1.1")
    plan = msgspec.structs.replace(site.plan(over_network=True), broker=broker)
    words = [sys.executable, "-m", "edge_agent.updater", msgspec.json.encode(plan).decode()]
    # The updater ends when its standard input does, so it is kept open.
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if ends_after_s is not None:
            wait_for("the delta is on its way", lambda: list(site.state.downloads.glob("*/.deltas/*/.chunks")))
            time.sleep(ends_after_s)
            process.kill()
        assert process.stdout is not None
        return [parse_from_updater(line) for line in process.stdout]


def test_updater_killed_in_a_delta_goes_on_and_fetches_little_twice(tmp_path: Path) -> None:
    site = UpdateSite(tmp_path)
    site.release("1.0.0", models=[("fp32", ballasted(size=SIZE))])
    site.start("1.0.0")
    site.look()
    site.release("1.1.0", models=[("fp32", ballasted(0.5, size=SIZE))])
    site.start("1.1.0")
    (delta,) = listed(site.fleet, "1.1.0").deltas
    with EmbeddedBroker() as broker, Stage(tmp_path) as stage:
        options = ("--broker", f"127.0.0.1:{broker.port}", "--protocol", "3.1.1")
        stage.start("depot", "fleet", "depot", str(tmp_path / "fleet"), *options, ready="depot ready")
        with FaultProxy(broker.port, rate=100_000) as link:
            first = run_updater(site, link.port, ends_after_s=1.2)
            assert not any(isinstance(message, Stored) for message in first)
            rest = run_updater(site, link.port, ends_after_s=None)
            received = link.received
    assert any(isinstance(message, DeltaUsed) for message in rest)
    assert isinstance(rest[-1], Stored)
    metadata = sum(path.stat().st_size for path in (site.repository / "metadata").iterdir())
    bundle = site.folder / "bundle-1.1.0"
    others = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file() and path.suffix != ".onnx")
    assert received < delta.size + 2 * (metadata + others) + 8 * 65_536
    assert received < 0.6 * SIZE
