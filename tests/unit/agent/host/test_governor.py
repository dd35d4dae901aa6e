"""The governor's table, hysteresis and dwell."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.host.governor import GovernorState, Readings, govern, turned_away
from edge_agent.host.sensors import Sensors
from edge_contracts.profile import GovernorThresholds, Threshold

LIMITS = GovernorThresholds(
    temperature_c=Threshold(conserve=70, critical=80, hysteresis=5),
    available_memory_mb=Threshold(conserve=100, critical=50, hysteresis=20),
    battery_percent=Threshold(conserve=30, critical=10),
    dwell_s=30,
)


@pytest.mark.parametrize(
    ("readings", "level", "reasons"),
    [
        (Readings(), "NORMAL", ()),
        (Readings(temperature_c=69.9), "NORMAL", ()),
        (Readings(temperature_c=70.0), "CONSERVE", ("temperature_c=70",)),
        (Readings(temperature_c=80.0), "CRITICAL", ("temperature_c=80",)),
        (Readings(available_memory_mb=100.0), "CONSERVE", ("available_memory_mb=100",)),
        (Readings(available_memory_mb=10.0, temperature_c=75.0), "CRITICAL", ("available_memory_mb=10",)),
        (Readings(throttled=True), "CONSERVE", ("throttled",)),
        (Readings(battery_percent=9.0), "CRITICAL", ("battery_percent=9",)),
        (Readings(disk_free_mb=0.0, cpu_percent=100.0), "NORMAL", ()),
    ],
)
def test_worse_is_believed_at_once(readings: Readings, level: str, reasons: tuple[str, ...]) -> None:
    state = govern(GovernorState(), readings, LIMITS, 0.0)
    assert (state.level, state.reasons) == (level, reasons)


def test_better_needs_the_hysteresis_and_the_dwell() -> None:
    hot = govern(GovernorState(), Readings(temperature_c=71.0), LIMITS, 0.0)
    for now, temperature, level in (
        (10.0, 66.0, "CONSERVE"),  # below the limit, not by the hysteresis
        (20.0, 64.0, "CONSERVE"),  # the dwell begins
        (49.0, 64.0, "CONSERVE"),
        (50.0, 64.0, "NORMAL"),
    ):
        hot = govern(hot, Readings(temperature_c=temperature), LIMITS, now)
        assert hot.level == level, now


def test_a_flicker_starts_the_dwell_anew() -> None:
    state = govern(GovernorState(), Readings(temperature_c=71.0), LIMITS, 0.0)
    for now, temperature in ((1.0, 60.0), (25.0, 71.0), (26.0, 60.0), (40.0, 60.0)):
        state = govern(state, Readings(temperature_c=temperature), LIMITS, now)
    assert state.level == "CONSERVE"


def test_critical_steps_down_to_conserve() -> None:
    state = govern(GovernorState(), Readings(temperature_c=85.0), LIMITS, 0.0)
    state = govern(state, Readings(temperature_c=72.0), LIMITS, 1.0)
    assert govern(state, Readings(temperature_c=72.0), LIMITS, 31.0).level == "CONSERVE"


def test_sensors_read_a_board(tmp_path: Path) -> None:
    files = {
        "class/thermal/thermal_zone0/temp": "61234\n",
        "class/thermal/thermal_zone1/temp": "0\n",
        "class/power_supply/BAT0/type": "Battery\n",
        "class/power_supply/BAT0/status": "Discharging\n",
        "class/power_supply/BAT0/capacity": "42\n",
        "devices/platform/soc/soc:firmware/get_throttled": "50004\n",
    }
    for name, text in files.items():
        path = tmp_path / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    readings = Sensors(tmp_path, tmp_path / "sys").read((), 0.0)
    assert (readings.temperature_c, readings.battery_percent, readings.throttled) == (61.234, 42.0, True)
    assert readings.disk_free_mb is not None


def test_past_throttling_is_not_throttling(tmp_path: Path) -> None:
    flags = tmp_path / "sys/devices/platform/soc/soc:firmware/get_throttled"
    flags.parent.mkdir(parents=True)
    flags.write_text("50000\n")
    assert Sensors(tmp_path, tmp_path / "sys").read((), 0.0).throttled is False


def test_sensors_of_a_bare_box_are_none(tmp_path: Path) -> None:
    readings = Sensors(tmp_path, tmp_path / "sys").read((), 0.0)
    assert (readings.temperature_c, readings.battery_percent, readings.throttled) == (None, None, None)


def test_full_disk_is_critical_and_turns_no_request_away() -> None:
    limits = GovernorThresholds(
        disk_free_mb=Threshold(conserve=100, critical=50), cpu_percent=Threshold(conserve=80, critical=95)
    )
    full = govern(GovernorState(), Readings(disk_free_mb=1.0, cpu_percent=10.0), limits, 0.0)
    assert (full.level, full.shed) == ("CRITICAL", False)
    busy = govern(full, Readings(disk_free_mb=1.0, cpu_percent=99.0), limits, 1.0)
    assert (busy.level, busy.shed) == ("CRITICAL", True)


def test_the_lowest_priority_is_turned_away_first_and_the_next_after_each_dwell() -> None:
    state = GovernorState()
    for now, temperature, level, shed in (
        (0.0, 81.0, "CRITICAL", 1),
        (29.0, 81.0, "CRITICAL", 1),
        (30.0, 81.0, "CRITICAL", 2),
        (90.0, 81.0, "CRITICAL", 3),  # there are no more
        (100.0, 72.0, "CRITICAL", 3),  # better, but not for the dwell time
        (130.0, 72.0, "CONSERVE", 0),
    ):
        state = govern(state, Readings(temperature_c=temperature), LIMITS, now, priorities=3)
        assert (state.level, state.shed) == (level, shed), now
    assert turned_away([5, 0, 5, 2], 2) == {0, 2}
    assert turned_away([5, 0], 0) == frozenset()


def test_memory_is_what_the_tightest_limit_around_the_process_leaves(tmp_path: Path) -> None:
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    facts = {"memory.max": 400, "memory.high": 320, "memory.current": 310}
    for name, megabytes in facts.items():
        (group / name).write_text(f"{megabytes * 1024 * 1024}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {30 * 1024 * 1024}\n")
    assert Sensors(tmp_path, tmp_path / "sys").read((), 0.0).available_memory_mb == 40.0
    for name in ("memory.max", "memory.high"):
        (group / name).write_text("max\n")
    whole = Sensors(tmp_path, tmp_path / "sys").read((), 0.0).available_memory_mb
    assert whole is not None
    assert whole > 40.0
