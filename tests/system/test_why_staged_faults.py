"""`fleet why` on staged faults: two agents of many slots, each slot on a channel where something else is wrong.

Every process is real: broker, depot, controller, agents, updaters, trials, workers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from msgspec import Struct
from support.brokers.brokers import make_broker
from support.makers import bundles
from support.sites.fleet_site import AGENT, MODEL, Site

from edge_contracts.channel import Availability, Gates, MaintenanceWindow
from edge_contracts.manifest import Budgets, EngineFloor, Requirements
from edge_contracts.selection import Facts
from edge_contracts.selector import Selector
from edge_fleet.releases.release import blob_path, revoke, set_floor
from edge_fleet.rollouts.channel_state import Plan, abort, finish, pause
from edge_fleet.rollouts.rollout import change_rollout, start_rollout
from edge_fleet.signing.workspace import FleetWorkspace
from edgewright.demo.stage import run_json, wait_for

pytestmark = pytest.mark.timeout(240)

SOON = Gates(soak_s=0.3)


class Fault(Struct, frozen=True):
    """What is wrong in a slot, and what must be said of it: a pattern of the sentence, of the next step, of the log."""

    text: str
    next: str = ""
    log: str = ""


FAULTS = {
    "quality": Fault(r"^rejected 1\.1\.0: trial-quality$", "rollout retry", "fp32: quality"),
    "load": Fault(r"^rejected 1\.2\.0: trial-load$", "rollout retry", "trial> fp32: load"),
    "latency": Fault(r"^rejected 1\.3\.0: trial-latency$", "rollout retry", r"latency_ms .* at most 1e-06 is allowed"),
    "engine": Fault(r"^rejected 1\.4\.0: engine$", "rollout retry", "needs onnxruntime 99.0.0 or newer"),
    "chip": Fault(r"^rejected 1\.5\.0: architecture$", "rollout retry", "needs riscv64, this device is"),
    "memory": Fault(r"^rejected 1\.6\.0: memory-budget$", "rollout retry", "needs 900000.0 MB"),
    "window": Fault(r"^has 1\.0\.0 and waits for its window, which opens \d\d:\d\d UTC$"),
    "turn": Fault(r"^has 1\.0\.0 and waits for its turn: turn 1 of 2 among those with its tag\.site, which begins in "),
    "place": Fault(r"^has not begun with 1\.0\.0: the rollout's roster has no turn for it yet"),
    "paused": Fault(r"^has not begun with 1\.0\.0: the rollout is paused$", "rollout resume"),
    "deadline": Fault(r"^has not begun with 1\.0\.0: the rollout's deadline has passed$", "later deadline"),
    "selector": Fault(r"^is not selected: tag\.site is 'north', the rollout asks for .*south"),
    "wave": Fault(r"^is not in the wave yet: its place is \d+\.\d of 100, the wave reaches 0"),
    "revoked": Fault(r"^may not have 1\.7\.0 \(revoked\): the release is revoked", "new version"),
    "minimum": Fault(r"^may not have 0\.9\.0 \(below-minimum\): it is older", "newer version"),
    "chunk": Fault(r"^has not begun with 1\.8\.0: what it asked for is not at any depot$", "depot"),
    "nothing": Fault(r"^nothing was ever rolled out on its channel nothing$", "rollout start"),
    "unbound": Fault(r"^has no channel: nothing is installed over the network$"),
    "soak": Fault(r"^serves 1\.0\.0 and watches it since "),
    "shadow": Fault(r"^runs 1\.9\.0 in shadow since "),
    "killed": Fault(r"^rolled back from 1\.0\.0: SIGKILL$", "rollout retry", "worker> worker .* ended: SIGKILL"),
    "aborted": Fault(r"^is offered nothing; it went back from 1\.0\.0: aborted; the channel has no stable release$"),
    "well": Fault(r"^runs 1\.0\.0, committed: nothing is due$"),
}


FIRST = tuple(FAULTS)[:12]
AGENTS = {"one": FIRST, "more": tuple(slot for slot in FAULTS if slot not in FIRST)}
"""Two agents, because one has at most sixteen slots."""


class FaultySite(Site):
    """Agents with a slot for each fault, and one that is killed once it has reported."""

    def configure(self, name: str, slots: tuple[str, ...]) -> Path:
        """Write the configuration of an agent with these slots, each on the channel of its name."""
        text = AGENT.format(
            state=self.folder / name, port=self.broker.port, protocol=self.broker.protocol, root=self.root, poll_s=1.0,
            profile=self.profile, tls="false", factory="",
        )  # fmt: skip
        known = f'id = "{name}"\ntags = {{ site = "north" }}'
        head = text.partition("[[slots]]")[0].replace('id = "site-device"', known)
        bound = []
        for slot in slots:
            channel = f'channel = "{slot}"\n'
            if slot == "unbound":
                channel = f'factory = "{self.folder / "bundle-1.0.0"}"\n'
            bound.append(f'[[slots]]\nname = "{slot}"\nhttp = "127.0.0.1:0"\n{channel}')
        config = self.folder / f"{name}.toml"
        config.write_text(head + "\n".join(bound))
        return config

    def why(self, name: str) -> dict[str | None, dict[str, Any]]:
        """Return what `fleet why` says, by slot; None what it says of the device."""
        return {one["slot"]: one for one in run_json("fleet", "why", str(self.fleet), name)["sentences"]}

    def worker_of(self, slot: str, agent: str) -> psutil.Process | None:
        """Return the worker that serves a slot."""
        for child in psutil.Process(self.pid(agent)).children():
            words = child.cmdline()
            if "edge_agent.worker" in words and json.loads(words[-1])["slot"] == slot:
                return child
        return None


def stage(site: FaultySite) -> None:
    """Sign what is wrong, before any device looks."""
    fleet, now = FleetWorkspace(site.fleet), datetime.now(UTC)
    versions = {
        "1.0.0": {}, "0.9.0": {}, "1.7.0": {}, "1.8.0": {"padding": 70_000}, "1.9.0": {},
        "1.1.0": {"models": [("fp32", bundles.wrong_model())]},
        "1.2.0": {"models": [("fp32", bundles.crash_model())]},
        "1.3.0": {"budgets": Budgets(latency_ms=1e-6)},
        "1.4.0": {"requirements": Requirements(engines=(EngineFloor(name="onnxruntime", minimum="99.0.0"),))},
        "1.5.0": {"requirements": Requirements(architectures=("riscv64",))},
        "1.6.0": {"requirements": Requirements(memory_mb=900_000.0)},
    }  # fmt: skip
    for version, options in versions.items():
        site.publish(version, **options)
    hour = (now + timedelta(hours=3)).strftime("%H:%M"), (now + timedelta(hours=4)).strftime("%H:%M")
    later = (now + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    turns = Availability(group="tag.site", at_most=1, turn_s=600.0, margin_s=1.0, begins=later)
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        "quality": ("1.1.0", {}), "load": ("1.2.0", {}), "latency": ("1.3.0", {}), "engine": ("1.4.0", {}),
        "chip": ("1.5.0", {}), "memory": ("1.6.0", {}), "revoked": ("1.7.0", {}), "chunk": ("1.8.0", {}),
        "minimum": ("0.9.0", {}), "paused": ("1.0.0", {}), "killed": ("1.0.0", {"gates": Gates(soak_s=600.0)}),
        "window": ("1.0.0", {"window": MaintenanceWindow(start=hour[0], end=hour[1])}),
        "turn": ("1.0.0", {"availability": turns}), "place": ("1.0.0", {"availability": turns}),
        "deadline": ("1.0.0", {"deadline": "2026-01-01T00:00:00Z"}),
        "selector": ("1.0.0", {"selectors": (Selector(fact="tag.site", values=("south",)),)}),
        "wave": ("1.0.0", {"percentage": 0.0}), "aborted": ("1.0.0", {}), "well": ("1.0.0", {}),
        "soak": ("1.0.0", {"gates": Gates(soak_s=0.3, min_requests=1000)}), "shadow": ("1.0.0", {}),
    }  # fmt: skip
    here = [Facts(device="one", board="x86-gateway", architecture="x86_64", tags={"site": "north"})]
    for channel, (version, options) in asked.items():
        plan = Plan(channel=channel, model=MODEL, version=version, **({"gates": SOON} | options))
        start_rollout(fleet, plan, now, devices=here if channel == "turn" else ())
    change_rollout(fleet, "paused", pause, now)
    revoke(fleet, MODEL, "1.7.0", now)
    set_floor(fleet, MODEL, "1.0.0", now)
    for blob in (site.folder / "bundle-1.8.0").rglob("padding.bin"):
        blob_path(site.repository, hashlib.sha256(blob.read_bytes()).hexdigest()).unlink()


@pytest.fixture(name="site")
def _site(tmp_path: Path) -> Iterator[FaultySite]:
    with make_broker("mosquitto", tmp_path) as broker, FaultySite(tmp_path, broker) as site:
        stage(site)
        site.start_depot()
        site.start_controller()
        yield site


def test_why_is_right_about_every_staged_fault(site: FaultySite) -> None:
    for name, slots in AGENTS.items():
        site.start(f"agent-{name}", "agent", "run", "--config", str(site.configure(name, slots)))
    site.start("agent-two", "agent", "run", "--config", str(site.configure("two", ("nothing",))))
    fleet = FleetWorkspace(site.fleet)

    def states() -> dict[str, str]:
        rows = run_json("fleet", "devices", str(site.fleet))["devices"]
        return {slot["slot"]: slot["state"] for row in rows if row["device"] in AGENTS for slot in row["slots"]}

    served = {"aborted": "committed", "well": "committed", "shadow": "committed", "killed": "active"}
    wait_for("what is well serves", lambda: served.items() <= states().items(), timeout_s=90)
    change_rollout(fleet, "aborted", abort, datetime.now(UTC))
    change_rollout(fleet, "well", finish, datetime.now(UTC))
    change_rollout(fleet, "shadow", finish, datetime.now(UTC))
    start_rollout(fleet, Plan(channel="shadow", model=MODEL, version="1.9.0", mode="shadow"), datetime.now(UTC))
    worker = wait_for("its worker", lambda: site.worker_of("killed", "agent-more"))
    worker.kill()
    psutil.Process(site.pid("agent-two")).kill()
    site.wait("agent-two")

    def missing() -> list[str]:
        said = {slot: one for name in AGENTS for slot, one in site.why(name).items()}
        return [f"{slot}: {said.get(slot)}" for slot, fault in FAULTS.items() if not _right(said.get(slot), fault)]

    last: list[str] = []

    def all_right() -> bool:
        last[:] = missing()
        return not last

    try:
        wait_for("every sentence is right", all_right, timeout_s=75)
    finally:
        assert not last, "\n".join(last)
    gone = wait_for("it is seen to be gone", lambda: _offline(site.why("two")), timeout_s=30)
    assert "agent doctor" in gone["next"]
    assert site.why("three")[None]["text"] == "three has never reported"


def _offline(said: dict[str | None, dict[str, Any]]) -> dict[str, Any] | None:
    about = said.get(None)
    return about if about is not None and about["text"].startswith("is offline since ") else None


def _right(sentence: dict[str, Any] | None, fault: Fault) -> bool:
    if sentence is None or not re.search(fault.text, sentence["text"]):
        return False
    return fault.next in (sentence["next"] or "") and bool(re.search(fault.log, sentence["log"] or ""))
