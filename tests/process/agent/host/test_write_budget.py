"""The day's writes: counted by the kernel's account over processes and restarts, and saved when they run out."""

from __future__ import annotations

import asyncio
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
from support.sites.agent_process import AgentProcess, eventually

from edge_agent.config.agent_toml import AgentConfig, DeviceConfig, SlotConfig
from edge_agent.host.write_budget import DAY_S, DayWrites, spend, tight
from edge_agent.host.write_meter import SAVE_S, WriteMeter
from edge_agent.supervisor.resource_monitor import WRITES_NAME
from edge_agent.telemetry.outbox import Outbox
from edge_agent.telemetry.uplink import BATCH_S, Uplink, utc_now
from edge_contracts.telemetry import Event

NOON = 20_000 * DAY_S + DAY_S / 2


def test_a_new_day_begins_a_new_account() -> None:
    spent = spend(spend(DayWrites(), NOON, 100), NOON + 60, 50)
    assert spent == DayWrites(day=20_000, bytes=150)
    assert spend(spent, NOON + DAY_S, 7) == DayWrites(day=20_001, bytes=7)


@pytest.mark.parametrize(("written", "expected"), [(0, False), (799, False), (800, True), (5000, True)])
def test_writing_is_saved_from_four_fifths_on(written: int, expected: bool) -> None:
    assert tight(DayWrites(bytes=written), 1000.0) is expected


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


def test_account_is_kept_through_restarts_and_written_down_rarely(tmp_path: Path) -> None:
    path = tmp_path / "writes.json"
    path.write_text(json.dumps({"day": 20_000, "bytes": 123_456_789}))
    meter = WriteMeter(path)
    assert meter.read([], NOON).bytes >= 123_456_789
    before = path.stat().st_mtime_ns
    meter.read([], NOON + 5.0)
    assert path.stat().st_mtime_ns == before
    meter.read([], NOON + SAVE_S + 5.0)
    assert path.stat().st_mtime_ns != before
    assert WriteMeter(path).spent.bytes >= 123_456_789
    path.write_bytes(b"\xff damaged")
    assert WriteMeter(path).spent == DayWrites()


def test_batches_become_durable_later_and_nothing_is_lost(tmp_path: Path) -> None:
    def durable() -> int:
        with contextlib.closing(sqlite3.connect(f"file:{tmp_path / 'outbox.db'}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM messages").fetchone()[0])

    async def live() -> None:
        config = AgentConfig(device=DeviceConfig(id="dev-1"), slots=(SlotConfig(name="main", factory="unused"),))
        box = Outbox(tmp_path / "outbox.db", device="dev-1", boot_id="b1", limit_bytes=10**7)
        link = Uplink(config, "b1", box, Deaf())
        link.put(event)
        assert durable() == 1
        link.saves_writes = True
        for _ in range(10):
            link.put(event)
            link.tick()
        assert durable() == 1
        link._commit_after -= BATCH_S
        link.tick()
        assert durable() == 11
        link.put(event)
        await link.stop()
        assert durable() == 12

    asyncio.run(live())


class Deaf:
    def connected(self, up: bool) -> None: ...

    def hinted(self, timestamp_version: int) -> None: ...


def event(sequence: int) -> Event:
    return Event(device="dev-1", boot_id="b1", sequence=sequence, time=utc_now(), event="e")


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
        eventually("it is said", lambda: "writes-saved" in agent.log)
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
    (said,) = [message for message in found if message.get("event") == "writes-saved"]
    assert "windows stay open until tomorrow" in str(said["text"])
    assert json.loads((agent.state.root / WRITES_NAME).read_text())["bytes"] >= 10**12
