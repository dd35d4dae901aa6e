"""The day's writes: counted by the kernel's account over processes and restarts, and saved when they run out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from pathlib import Path

import pytest
from support.parts.write_budget import NOON

from edge_agent.config.agent_toml import AgentConfig, DeviceConfig, SlotConfig
from edge_agent.host.write_budget import DAY_S, DayWrites, spend, tight
from edge_agent.host.write_meter import SAVE_S, WriteMeter
from edge_agent.telemetry.outbox import Outbox
from edge_agent.telemetry.uplink import BATCH_S, Uplink, utc_now
from edge_contracts.telemetry import Event


def test_a_new_day_begins_a_new_account() -> None:
    spent = spend(spend(DayWrites(), NOON, 100), NOON + 60, 50)
    assert spent == DayWrites(day=20_000, bytes=150)
    assert spend(spent, NOON + DAY_S, 7) == DayWrites(day=20_001, bytes=7)


@pytest.mark.parametrize(("written", "expected"), [(0, False), (799, False), (800, True), (5000, True)])
def test_writing_is_saved_from_four_fifths_on(written: int, expected: bool) -> None:
    assert tight(DayWrites(bytes=written), 1000.0) is expected


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
