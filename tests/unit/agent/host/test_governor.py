"""The governor's table, hysteresis and dwell."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.host.governor import GovernorState, Readings, govern, turned_away
from edge_agent.host.sensors import Sensors
from edge_contracts.profile import GovernorThresholds, Threshold
from edge_contracts.readings import READINGS

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


def test_temperature_comes_from_monitoring_chips_where_there_are_no_thermal_zones(tmp_path: Path) -> None:
    chips = {"hwmon0": ("nvme", 79_000), "hwmon1": ("coretemp", 61_500), "hwmon2": ("it8728", 88_000)}
    for folder, (name, value) in chips.items():
        path = tmp_path / "sys/class/hwmon" / folder
        path.mkdir(parents=True)
        (path / "name").write_text(f"{name}\n")
        (path / "temp1_input").write_text(f"{value}\n")
    sensors = Sensors(tmp_path, tmp_path / "sys")
    assert sensors.read((), 0.0).temperature_c == 61.5, "the CPU's own chip"
    (tmp_path / "sys/class/hwmon/hwmon1/name").write_text("unknown\n")
    assert sensors.read((), 0.0).temperature_c == 88.0, "the board's hottest, never a disk's"
    zone = tmp_path / "sys/class/thermal/thermal_zone0/temp"
    zone.parent.mkdir(parents=True)
    zone.write_text("55000\n")
    assert sensors.read((), 0.0).temperature_c == 55.0


def test_memory_of_a_proc_without_meminfo_is_unknown_and_judged_by_nothing(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    readings = Sensors(tmp_path, tmp_path / "sys", tmp_path / "proc").read((), 0.0)
    assert readings.available_memory_mb is None
    assert govern(GovernorState(), Readings(), LIMITS, 0.0).level == "NORMAL"


def test_one_list_of_readings_is_what_is_read_judged_and_shown() -> None:
    names = [reading.name for reading in READINGS]
    assert list(Readings.__struct_fields__) == names
    judged = set(GovernorThresholds.__struct_fields__) - {"dwell_s"}
    assert judged == {reading.name for reading in READINGS if reading.unit != "flag"}


def test_box_and_limits_of_our_own_are_judged_by_thresholds_of_their_own() -> None:
    """A gateway of 4 GB whose service may have 320 MB: the board's eighth says nothing about what the limit leaves."""
    thresholds = GovernorThresholds(available_memory_mb=Threshold(conserve=512, critical=256, hysteresis=256))
    fine = Readings(available_memory_mb=3000.0, memory_limit_left_mb=235.0)
    assert govern(GovernorState(), fine, thresholds, 0.0).level == "NORMAL"
    short = Readings(available_memory_mb=3000.0, memory_limit_left_mb=49.0)
    judged = govern(GovernorState(), short, thresholds, 0.0)
    assert (judged.level, judged.reasons) == ("CONSERVE", ("memory_limit_left_mb=49",))
    box = Readings(available_memory_mb=200.0, memory_limit_left_mb=235.0)
    assert govern(GovernorState(), box, thresholds, 0.0).reasons == ("available_memory_mb=200",)


def test_few_tasks_or_inodes_hold_updates_and_turn_no_request_away() -> None:
    for readings in (Readings(tasks_left=1.0), Readings(free_inodes=0.0)):
        state = govern(GovernorState(), readings, GovernorThresholds(), 0.0)
        assert (state.level, state.shed) == ("CRITICAL", 0)


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
