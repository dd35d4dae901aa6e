"""A host that is paused: the whole agent stands still and goes on, and nobody is blamed for it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support.sites.agent_process import AgentProcess, eventually
from support.sites.update_site import UpdateSite

from edge_agent.storage.audit_chain import AuditEntry
from edge_agent.storage.audit_log import audit_files
from edge_agent.supervisor.slots.worker_process import MISSED_HEARTBEATS
from edge_contracts.channel import Gates

PAUSE_S = MISSED_HEARTBEATS + 5.0
"""Longer than a silent worker is waited for."""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    site = UpdateSite(tmp_path)
    site.release("1.0.0")
    site.start("1.0.0", gates=Gates(soak_s=0.2))
    agent = AgentProcess(tmp_path, site)
    agent.start()
    agent.bring()
    agent.wait_for("committed", "1.0.0")
    site.release("1.1.0")
    site.start("1.1.0", gates=Gates(soak_s=600.0))
    agent.bring()
    agent.wait_for("active", "1.1.0")
    eventually("the new release answers", lambda: ":1.1.0/" in agent.served_by())
    yield agent
    agent.stop()


def pause(agent: AgentProcess, seconds: float, *, supervisor_first: bool) -> None:
    """Stop every process of the agent for so long; which one goes on first is the kernel's choice."""
    pids = [agent.process.pid, *agent.slot().workers]
    pids = pids if supervisor_first else pids[::-1]
    for pid in pids[::-1]:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.7)  # the others still stand while this one looks


def told(agent: AgentProcess) -> list[str]:
    lines = [line for path in audit_files(agent.state.audit) for line in path.read_bytes().splitlines()]
    return [msgspec.json.decode(line, type=AuditEntry).event for line in lines]


@pytest.mark.parametrize("supervisor_first", [True, False])
def test_release_that_soaks_survives_a_pause_of_the_whole_agent(agent: AgentProcess, supervisor_first: bool) -> None:
    workers = eventually("the old worker is gone", lambda: len(agent.slot().workers) == 1 and agent.slot().workers)
    pause(agent, PAUSE_S, supervisor_first=supervisor_first)
    assert ":1.1.0/" in agent.served_by()
    time.sleep(2.0)  # some looks at what was said meanwhile
    slot = agent.slot()
    assert (slot.state, slot.reason, slot.workers) == ("active", None, workers)
    assert "agent-paused" in told(agent)
    assert "worker-died" not in told(agent)


def test_worker_that_alone_stands_still_is_still_killed(agent: AgentProcess) -> None:
    os.kill(agent.slot().workers[0], signal.SIGSTOP)
    assert agent.wait_for("rolled_back", "1.1.0").reason == "hung"
