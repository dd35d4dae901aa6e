"""What a lighter variant would save, by what presses on the box."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from edge_agent.config.profiles import load_profile
from edge_agent.host.governor import Readings
from edge_agent.host.sensors import Sensors
from edge_agent.supervisor.resource_monitor import ResourceMonitor
from edge_contracts.profile import GovernorThresholds, Threshold

LIMITS = GovernorThresholds(
    temperature_c=Threshold(conserve=70, critical=80, hysteresis=5),
    available_memory_mb=Threshold(conserve=64, critical=32, hysteresis=16),
    disk_free_mb=Threshold(conserve=100, critical=10, hysteresis=0),
    dwell_s=10.0,
)


class Pretended(Sensors):
    now = Readings()

    def read(self, pids: list[int], now: float) -> Readings:  # type: ignore[override]
        return self.now


def monitor(folder: Path) -> tuple[ResourceMonitor, Pretended]:
    sensors = Pretended(folder, folder)
    profile = replace(load_profile("pi-4"), governor=LIMITS)
    return ResourceMonitor(folder, profile, sensors, lambda _: None), sensors


def test_a_full_disk_changes_no_variant(tmp_path: Path) -> None:
    box, sensors = monitor(tmp_path)
    sensors.now = Readings(disk_free_mb=50.0, temperature_c=50.0)
    box.look([], frozenset(), 0.0, 0.0)
    assert box.governor.level == "CONSERVE"
    assert box.shortages == frozenset()


def test_heat_asks_for_compute_and_memory_for_memory_whichever_is_worse(tmp_path: Path) -> None:
    box, sensors = monitor(tmp_path)
    sensors.now = Readings(temperature_c=75.0, available_memory_mb=20.0)
    box.look([], frozenset({0}), 0.0, 0.0)
    assert box.governor.level == "CRITICAL"  # by the memory, but the heat still counts
    assert box.shortages == {"compute", "memory"}


def test_heat_that_passed_is_forgotten_after_the_dwell_time_though_the_disk_stays_full(tmp_path: Path) -> None:
    box, sensors = monitor(tmp_path)
    sensors.now = Readings(temperature_c=75.0, disk_free_mb=50.0)
    box.look([], frozenset(), 0.0, 0.0)
    sensors.now = Readings(temperature_c=66.0, disk_free_mb=50.0)  # not below 70 by the hysteresis
    box.look([], frozenset(), 20.0, 20.0)
    assert box.shortages == {"compute"}
    sensors.now = Readings(temperature_c=60.0, disk_free_mb=50.0)
    box.look([], frozenset(), 25.0, 25.0)
    assert box.shortages == {"compute"}
    box.look([], frozenset(), 31.0, 31.0)
    assert (box.governor.level, box.shortages) == ("CONSERVE", frozenset())
