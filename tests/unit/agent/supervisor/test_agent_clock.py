"""The agent's clock: the wall clock as it is now, steps and pauses told once, and no hour that cannot be known."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edge_agent.supervisor.agent_clock import TIMESYNC, UNSYNCED_S, AgentClock


class Times:
    """A wall clock and a boot clock that are turned by hand."""

    def __init__(self, folder: Path) -> None:
        self.wall, self.boot = 1_800_000_000.0, 500.0
        self.folder = folder
        self.floor = folder / "floor.json"
        self.clock = AgentClock(self.floor, folder, wall=lambda: self.wall, boot=lambda: self.boot)

    def go(self, seconds: float) -> None:
        self.wall += seconds
        self.boot += seconds


@pytest.fixture
def times(tmp_path: Path) -> Times:
    return Times(tmp_path)


def test_clock_that_is_set_is_followed_at_once_and_told_once(times: Times) -> None:
    times.go(0.5)
    assert not times.clock.tick()
    times.wall += 6 * 3600.0
    times.go(0.5)
    before = times.clock()
    change = times.clock.tick()
    assert (change.stepped_s, change.lost_s) == (6 * 3600.0, 0.0)
    assert times.clock() == times.wall == before + change.stepped_s
    times.go(0.5)
    assert not times.clock.tick()


def test_clock_that_is_disciplined_is_followed_without_a_word(times: Times) -> None:
    for _ in range(100):
        times.go(0.5)
        times.wall += 0.01
        assert not times.clock.tick()
    assert times.clock() == times.wall


def test_pause_is_told_as_time_lost_and_not_as_a_step(times: Times) -> None:
    times.go(60.0)
    change = times.clock.tick()
    assert (change.stepped_s, change.lost_s) == (0.0, 58.0)
    assert times.clock() == times.wall


def test_clock_behind_what_signed_documents_show_knows_no_hour(times: Times) -> None:
    assert times.clock.known
    times.floor.write_bytes(msgspec.json.encode({"time": 0.0, "signed": times.wall + 3600.0}))
    assert not times.clock.known
    times.wall += 3601.0
    assert not times.clock.known  # it was not looked at yet
    times.clock.tick()
    assert times.clock.known


def test_time_that_the_devices_own_clock_believed_once_closes_no_window(times: Times) -> None:
    times.floor.write_bytes(msgspec.json.encode({"time": times.wall + 1e6, "signed": times.wall - 1e6}))
    assert times.clock.known


def test_damaged_floor_closes_no_window(times: Times) -> None:
    times.floor.write_bytes(b"\xff{")
    assert times.clock.known


def test_time_service_that_has_not_set_the_clock_yet_is_waited_for(times: Times) -> None:
    (times.folder / TIMESYNC).mkdir(parents=True)
    assert not times.clock.known
    (times.folder / TIMESYNC / "synchronized").touch()
    assert times.clock.known


def test_time_service_that_reaches_nobody_is_not_waited_for_for_ever(times: Times) -> None:
    (times.folder / TIMESYNC).mkdir(parents=True)
    times.go(UNSYNCED_S)
    assert not times.clock.known
    times.go(1.0)
    assert times.clock.known
