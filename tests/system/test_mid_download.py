"""Orders and budgets that change while a release is half fetched: real processes, a slow link."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.brokers.brokers import make_broker
from support.brokers.fault_proxy import FaultProxy
from support.sites.fleet_site import CHANNEL, MODEL, Site

from edge_contracts.channel import Channel, Gates, MaintenanceWindow
from edge_contracts.limits import MIB
from edge_fleet.rollouts.channel_state import Plan, abort, finish, pause, resume
from edge_fleet.rollouts.rollout import change_rollout, start_rollout
from edge_fleet.signing.workspace import FleetWorkspace
from edgewright.demo.stage import wait_for

pytestmark = pytest.mark.timeout(150)

RATE = 250_000
PADDING = 2_500_000
"""Ten seconds of fetching."""

SMALL_PROFILE = """\
name = "small"
engines = ["onnxruntime"]
[board]
description = "a box with a small contract"
architecture = "x86_64"
cores = 2
memory_mb = 4096
source = "this test"
[network]
daily_mb = 1.0
"""


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Site]:
    """A site whose device serves 1.0.0 and hangs on a slow link."""
    with make_broker("embedded", tmp_path) as broker, Site(tmp_path, broker) as site:
        site.publish("1.0.0")
        site.start_depot()
        with FaultProxy(broker.port, rate=RATE) as link:
            site.broker = SimpleNamespace(port=link.port, protocol=broker.protocol)  # type: ignore[assignment]
            site.start_agent()
            site.roll_out("1.0.0")
            site.wait_for_state("committed", "1.0.0")
            yield site
            site.stop("agent")


def half_fetched(site: Site, version: str) -> None:
    """Release a large version and wait until a part of it has arrived."""
    site.publish(version, padding=PADDING)
    site.roll_out(version)
    wait_for(f"a part of {version}", lambda: (progress(site) or 0.0) > 0.1, timeout_s=60)


def progress(site: Site) -> float | None:
    slot = site.slot()
    found: float | None = slot["progress"] if slot["state"] == "downloading" else None
    return found


def order(change: Callable[[Channel], Channel], site: Site) -> None:
    change_rollout(FleetWorkspace(site.fleet), CHANNEL, change, datetime.now(UTC))


def collected(site: Site, releases: int) -> None:
    """Wait until so many releases and no partial download lie on the device: garbage is collected at each start."""
    site.stop("agent")
    site.start_agent()

    def probe() -> bool:
        left = [len(list((site.state / room).iterdir())) for room in ("releases", "downloads")]
        return left == [releases, 0]

    wait_for("only what is needed is left", probe, timeout_s=60)


def test_newer_release_supersedes_one_that_is_half_fetched(slow: Site) -> None:
    half_fetched(slow, "1.1.0")
    slow.publish("1.2.0")
    slow.roll_out("1.2.0")
    slow.wait_for_state("committed", "1.2.0", timeout_s=90)
    slow.serves("1.2.0")
    collected(slow, releases=2)


def test_aborted_release_that_is_half_fetched_goes_with_its_bytes(slow: Site) -> None:
    half_fetched(slow, "1.1.0")
    order(abort, slow)
    wait_for("it is given up", lambda: slow.slot()["state"] == "rejected")
    assert slow.slot()["reason"] == "aborted"
    collected(slow, releases=1)
    slow.serves("1.0.0")


def test_paused_release_that_is_half_fetched_goes_on_from_there(slow: Site) -> None:
    half_fetched(slow, "1.1.0")
    order(pause, slow)
    wait_for("it is held", lambda: slow.slot()["reason"] == "paused")
    here = fetched(slow)
    assert here > 0.1 * PADDING
    order(resume, slow)
    slow.wait_for_state("committed", "1.1.0", timeout_s=90)
    used = json.loads((slow.state / "traffic.json").read_bytes())["used"]
    assert used < PADDING + here, "nothing was kept of the first part"


def fetched(site: Site) -> int:
    """Return the bytes of the partial download that its bitmap names, all chunks taken for full ones."""
    (bitmap,) = (site.state / "downloads").glob("*/.chunks")
    return sum(bitmap.read_bytes()) * 65536


def test_release_that_is_fetched_outside_its_maintenance_window_waits_for_it(slow: Site) -> None:
    slow.publish("1.1.0")
    fleet, now = FleetWorkspace(slow.fleet), datetime.now(UTC)
    closed = MaintenanceWindow(start=clock(now, 3), end=clock(now, 4))
    order(finish, slow)
    gates = Gates(soak_s=0.5)
    start_rollout(fleet, Plan(channel=CHANNEL, model=MODEL, version="1.1.0", gates=gates, window=closed), now)
    slow.wait_for_state("verified", "1.1.0")
    wait_for("two looks later", lambda: slow.slot()["state"] == "verified")
    slow.serves("1.0.0")
    slow.publish("1.2.0")
    slow.roll_out("1.2.0")
    slow.wait_for_state("committed", "1.2.0", timeout_s=90)


def clock(now: datetime, hours: int) -> str:
    return (now + timedelta(hours=hours)).strftime("%H:%M")


def test_days_budget_ends_a_download_in_its_middle(slow: Site) -> None:
    slow.stop("agent")
    profile = slow.folder / "small.toml"
    profile.write_text(SMALL_PROFILE)
    slow.profile = str(profile)
    slow.start_agent()
    slow.publish("1.1.0", padding=PADDING)
    slow.roll_out("1.1.0")
    wait_for("the budget is used up", lambda: slow.slot()["reason"] == "byte-budget", timeout_s=40)
    used = json.loads((slow.state / "traffic.json").read_bytes())["used"]
    assert 0.7 * MIB < used <= MIB
    slow.serves("1.0.0")
