"""A card that is read-only, at boot or from some moment on: the agent serves what is there, says so to people and to
the fleet, installs nothing, and names what it could not keep once it can write again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.brokers.brokers import Mosquitto, free_port
from support.brokers.topic_client import TopicClient
from support.disks.failing_card import FailingCard
from support.disks.small_disk import SmallDisk
from support.makers import bundles
from support.sites.agent_process import AgentProcess, eventually
from support.sites.update_site import UpdateSite

from edge_agent.cli.agent import agent as agent_command
from edge_agent.ipc.control import ControlRequest, ask_agent
from edge_agent.storage.audit_log import verify_audit
from edge_agent.storage.state_dir import StateFolder
from edge_contracts.channel import Gates

pytestmark = pytest.mark.timeout(150)

DISK_FREE = "\nconserve = 1024.0\ncritical = 512.0\nhysteresis = 256.0"


def agent_on(folder: Path, disk: Path, **options: Any) -> AgentProcess:
    """Return an agent whose state folder lies on the disk; its profile does not watch how small that is."""
    bundles.make_bundle(folder / "factory", version="0.9.0")
    agent = AgentProcess(folder, options.pop("site", None), factory=folder / "factory", **options)
    text = agent.config.read_text().replace(str(agent.state.root), str(disk / "state"))
    agent.config.write_text(text.replace("[telemetry]", f'profile = "{small_profile(folder)}"\n[telemetry]', 1))
    agent.state = StateFolder(disk / "state")
    return agent


def small_profile(folder: Path) -> Path:
    shipped = Path(__file__).resolve().parents[2] / "firmware_configs/profiles/x86-gateway.toml"
    text = shipped.read_text()
    assert DISK_FREE in text
    path = folder / "small.toml"
    path.write_text(text.replace(DISK_FREE, "\nconserve = 3.0\ncritical = 2.0\nhysteresis = 1.0"))
    return path


def doctor(agent: AgentProcess) -> tuple[int, dict[str, dict[str, str]]]:
    """Return the doctor's exit code and its findings by check."""
    done = CliRunner().invoke(agent_command, ["doctor", "--json", "--config", str(agent.config)])
    found = json.loads(done.stdout)["findings"]
    return done.exit_code, {finding["check"]: finding for finding in found}


def events(agent: AgentProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in agent.state.audit.read_text().splitlines()]


def test_agent_that_boots_with_its_card_read_only_serves_and_says_so(tmp_path: Path) -> None:
    site = UpdateSite(tmp_path)
    site.release("1.0.0")
    site.start("1.0.0", gates=Gates(soak_s=0.5))
    with SmallDisk(tmp_path / "disk") as disk:
        agent = agent_on(tmp_path, disk.folder, site=site)
        with agent:
            agent.served_by()
            agent.bring()
            agent.wait_for("committed", "1.0.0")
        lines = len(events(agent))
        disk.read_only()
        with agent:
            assert agent.served_by() == "active:1.0.0/fp32"
            status = eventually("it is said", lambda: agent.status() if agent.status().storage_trouble else None)
            assert "read-only" in status.updates_wait
            assert "state-read-only" in status.slots[0].faults
            assert status.level == "NORMAL", "nothing is wrong with what it serves"
            os.kill(agent.slot().workers[0], signal.SIGKILL)
            assert agent.served_by() == "active:1.0.0/fp32", "a worker can still be replaced"
            site.release("1.1.0")
            site.start("1.1.0", gates=Gates(soak_s=0.5))
            reply = ask_agent(agent.state, ControlRequest(ask="import", folder=str(site.repository)), timeout_s=10.0)
            assert reply is not None
            assert [trouble.reason for trouble in reply.troubles] == ["state"]
            code, found = doctor(agent)
            assert code == 1
            assert found["state folder"]["verdict"] == "failure"
            assert "read-only" in found["state folder"]["fix"]
            assert found["release 1.0.0 (main, serving)"]["verdict"] == "ok", "the other checks go on"
            assert found["agent"]["verdict"] == "ok", "and the agent can be asked"
            disk.writable()
            eventually("it is over", lambda: not agent.status().storage_trouble)
            agent.bring()
            agent.wait_for("committed", "1.1.0")
        names = [event["event"] for event in events(agent)[lines:]]
        assert names[0] == "audit-gap", "what the log has missed is named before anything else"
        assert "state-writable" in names
        verify_audit(agent.state.audit)
        assert unaccounted(agent) == set()


def test_agent_that_first_starts_on_a_read_only_folder_serves_its_factory_bundle(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "disk") as disk:
        (disk.folder / "state").mkdir()
        agent = agent_on(tmp_path, disk.folder)
        disk.read_only()
        with agent:
            assert agent.served_by() == "factory:0.9.0/fp32"
        assert not any((disk.folder / "state").iterdir())


def unaccounted(agent: AgentProcess) -> set[int]:
    """Return the numbers of the last boot's messages that neither wait in the spool nor are named in a tombstone."""
    with contextlib.closing(sqlite3.connect(agent.state.outbox)) as database:
        (boot,) = database.execute("SELECT boot_id FROM messages ORDER BY row DESC LIMIT 1").fetchone()
        rows = database.execute("SELECT body FROM messages WHERE boot_id = ?", (boot,)).fetchall()
    numbers = accounted([json.loads(body) for (body,) in rows])
    return set(range(max(numbers) + 1)) - numbers


def accounted(messages: list[dict[str, Any]]) -> set[int]:
    runs = [(m["first"], m["count"]) if m["kind"] == "dropped" else (m["sequence"], 1) for m in messages]
    return {number for first, count in runs for number in range(first, first + count)}


def test_card_that_fails_under_the_running_agent_is_told_to_the_fleet_with_all_that_follows(tmp_path: Path) -> None:
    """What waits on the card goes out as well, and what could not be kept is named to the fleet at once."""
    port = free_port()
    with FailingCard(tmp_path) as card, Mosquitto(tmp_path, port=port):
        agent = agent_on(tmp_path, card.folder, broker_port=port)
        with TopicClient(port, "ew/v1/default/d/dev-1/#") as fleet, agent:
            agent.served_by()
            eventually("messages wait for a collector", lambda: agent.status().spooled >= 3)
            card.fail()
            os.kill(agent.slot().workers[0], signal.SIGKILL)
            assert agent.served_by() == "factory:0.9.0/fp32"
            eventually("it is noticed", lambda: agent.status().storage_trouble)
            fleet.send("ew/v1/default/collector/test", b"1", retain=True)
            told = eventually("the fleet hears of it", lambda: telemetry(fleet, "state-read-only"))
            assert "agent-started" in {message.get("event") for message in told}, "it waited on the card"
            numbers = accounted(told)
            assert set(range(max(numbers) + 1)) == numbers
            assert any(message["kind"] == "window" for message in told)
            reported = [json.loads(m.payload) for m in fleet.heard if m.topic.endswith("/reported")]
            assert "state-read-only" in reported[-1]["slots"][0]["faults"]
        assert "Traceback" not in agent.log
        with agent:
            assert agent.served_by() == "factory:0.9.0/fp32", "the next start serves as well"


def telemetry(fleet: TopicClient, event: str) -> list[dict[str, Any]] | None:
    """Return all telemetry once that event is in it."""
    heard = [json.loads(message.payload) for message in fleet.heard if message.topic.endswith("/tele")]
    return heard if any(message.get("event") == event for message in heard) else None
