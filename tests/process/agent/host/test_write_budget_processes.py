"""What `test_write_budget.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.makers import bundles
from support.parts.write_budget import NOON
from support.sites.agent_process import AgentProcess, eventually

from edge_agent.host.write_budget import DAY_S
from edge_agent.host.write_meter import WriteMeter
from edge_agent.supervisor.resource_monitor import WRITES_NAME


def counted(folder: Path) -> bool:
    """Whether the kernel counts writes to this file system; it does not for those in memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_oublock
    write(folder / "probe", 1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_oublock > before


def write(path: Path, mebibytes: int) -> None:
    with path.open("wb") as file:
        file.write(b"x" * (mebibytes << 20))
        file.flush()
        os.fsync(file.fileno())


def test_children_count_while_they_run_and_when_they_have_ended_but_once(tmp_path: Path) -> None:
    if not counted(tmp_path):
        pytest.skip("this file system is in memory")
    meter = WriteMeter(tmp_path / "writes.json")
    start = meter.read([], NOON).bytes
    code = "import os,sys; f=open(sys.argv[1],'wb'); f.write(b'x'*3145728); f.flush(); os.fsync(f.fileno()); input()"
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "big")], stdin=subprocess.PIPE)
    eventually("it is counted", lambda: meter.read([child.pid], NOON).bytes - start >= 3 << 20)
    child.communicate(b"\n")
    after = meter.read([], NOON).bytes - start
    assert 3 << 20 <= after < 4 << 20


def messages(agent: AgentProcess) -> list[dict[str, object]]:
    with contextlib.closing(sqlite3.connect(agent.state.outbox)) as database:
        return [json.loads(body) for (body,) in database.execute("SELECT body FROM messages ORDER BY row")]


def test_agent_over_its_budget_says_so_keeps_counting_and_sends_one_long_window(tmp_path: Path) -> None:
    bundles.make_bundle(tmp_path / "factory", version="0.1.0")
    agent = AgentProcess(tmp_path, None, factory=tmp_path / "factory")
    agent.state.create()
    spent = {"day": int(time.time() // DAY_S), "bytes": 10**12}
    (agent.state.root / WRITES_NAME).write_text(json.dumps(spent))
    with agent:
        eventually("it is said", lambda: "write-budget-exceeded" in agent.log)
        agent.served_by()
        for _ in range(5):
            agent.ask()
        writes = agent.status().writes
        assert writes is not None
        assert writes.saving
        assert writes.today_mb > writes.budget_mb
        time.sleep(1.5)  # three windows' length
    found = messages(agent)
    (window,) = [message for message in found if message["kind"] == "window"]
    assert window["counters"]["requests"] >= 6  # type: ignore[index]
    assert window["resources"]["written_today_mb"] > 900_000  # type: ignore[index]
    (said,) = [message for message in found if message.get("event") == "write-budget-exceeded"]
    assert "telemetry windows wait until tomorrow" in str(said["text"])
    assert json.loads((agent.state.root / WRITES_NAME).read_text())["bytes"] >= 10**12
