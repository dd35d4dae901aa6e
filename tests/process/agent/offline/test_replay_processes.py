"""What `test_replay.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.makers import bundles as bundle_maker
from support.parts import replay as parts
from support.parts.replay import report, run
from support.sites.agent_process import AgentProcess, eventually
from support.sites.update_site import UpdateSite

from edge_agent.capture.files import capture_files
from edge_agent.capture.sealing import PUBLIC_NAME
from edge_contracts.channel import Gates

place = parts.place


@pytest.fixture
def device(tmp_path: Path, place: Path) -> Iterator[AgentProcess]:
    """An agent that captures everything 1.0.0 answers."""
    site = UpdateSite(tmp_path)
    site.release("1.0.0")
    site.start("1.0.0", gates=Gates(soak_s=0.3))
    agent = AgentProcess(tmp_path, site)
    settings = f'[slots.capture]\nkey = "{place / PUBLIC_NAME}"\nshare = 1.0\nmax_mb = 1.0\n'
    agent.config.write_text(agent.config.read_text() + settings)
    agent.start()
    agent.bring()
    agent.wait_for("committed", "1.0.0")
    yield agent
    agent.stop()


def ask_until_captured(agent: AgentProcess, count: int) -> None:
    def probe() -> bool:
        agent.ask()
        return agent.slot().counters.get("captured", 0) >= count

    eventually(f"{count} requests are captured", probe, 100.0)


@pytest.mark.timeout(240)
def test_what_a_real_device_captured_is_replayed_and_survives_kills(
    device: AgentProcess, place: Path, tmp_path: Path
) -> None:
    ask_until_captured(device, 5)
    captures = device.state.root / "captures" / "main"
    killed = set(device.slot().workers)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    # The first worker may have captured more than it had reported: so the second one's are counted from its start.
    eventually("another worker serves", lambda: bool(set(device.slot().workers) - killed), 100.0)
    ask_until_captured(device, device.slot().counters.get("captured", 0) + 3)
    status = device.slot()
    assert status.captured is not None
    assert status.captured.allowed
    assert status.captured.megabytes > 0
    assert len(capture_files(captures)) == 2  # each worker has begun its own
    with contextlib.suppress(ProcessLookupError):
        device.kill()
    device.start()
    found = report(run("replay", captures, "--key", place / "capture.key", "--release", place / "old", "--json"))
    assert found["records"] >= 8
    assert (found["changed"], found["damaged"]) == (0, [])
    private = b"".join(path.read_bytes() for path in device.state.root.rglob("*") if path.is_file())
    assert b"PRIVATE KEY" not in private


@pytest.mark.timeout(240)
def test_a_key_that_is_none_is_told_and_costs_no_answer(tmp_path: Path, place: Path) -> None:
    bundle_maker.make_bundle(tmp_path / "factory", version="0.1.0")
    agent = AgentProcess(tmp_path, None, factory=tmp_path / "factory")
    wrong = tmp_path / "capture.pub"
    wrong.write_bytes((place / "capture.key").read_bytes())
    agent.config.write_text(f'{agent.config.read_text()}[slots.capture]\nkey = "{wrong}"\nshare = 1.0\n')
    with agent:
        assert agent.served_by() == "factory:0.1.0/fp32"
    assert "is a private key" in agent.log
