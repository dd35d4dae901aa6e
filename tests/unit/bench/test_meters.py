"""Meters of energy on made-up files, operators of a made-up profile."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_bench.energy.meters import Rapl, ina_reader, open_meter
from edge_bench.energy.serial_line import watts_of
from edge_bench.scenarios.operators import by_kind, costs_of
from edge_contracts.errors import OperatorError


def written(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def test_rapl_adds_packages_and_survives_a_counter_that_runs_over(tmp_path: Path) -> None:
    zones = [
        written(tmp_path / "class/powercap" / f"intel-rapl:{n}", energy_uj=9_000_000, max_energy_range_uj=10_000_000)
        for n in range(2)
    ]
    written(tmp_path / "class/powercap/intel-rapl:0:0", energy_uj=1, max_energy_range_uj=2)  # part of the package
    meter = Rapl(tmp_path)
    assert meter.works
    (zones[0] / "energy_uj").write_text("9500000\n")
    (zones[1] / "energy_uj").write_text("1000000\n")
    assert meter.joules() == pytest.approx(0.5 + 2.0)


def test_an_ina_sensor_tells_watts_or_volts_and_amperes(tmp_path: Path) -> None:
    written(tmp_path / "class/hwmon/hwmon0", name="cpu_thermal", temp1_input=50000)
    chip = written(tmp_path / "class/hwmon/hwmon1", name="ina226", power1_input=3_250_000)
    found = ina_reader(tmp_path)
    assert found is not None
    assert (found[0], found[1]()) == ("INA226", 3.25)
    (chip / "power1_input").unlink()
    (chip / "in1_input").write_text("5000")
    (chip / "curr1_input").write_text("700")
    found = ina_reader(tmp_path)
    assert found is not None
    assert found[1]() == pytest.approx(3.5)
    (chip / "curr1_input").write_text("gone")
    assert found[1]() is None


@pytest.mark.parametrize(
    ("line", "watts"),
    [
        ("5.00 V 0.60 A", 3.0),
        ("V=5.00,A=0.60", 3.0),
        ('{"voltage": 5.0, "current": 0.6}', 3.0),
        ("U: 5.0V I: 0.6A P: 2.9W", 2.9),
        ('{"power": 3.25}', 3.25),
        ("3.1 W", 3.1),
        ("power_w=1e-1", 0.1),
        ("hello", None),
        ("5.00 V", None),
        ("", None),
    ],
)
def test_a_line_of_a_meter_is_watts(line: str, watts: float | None) -> None:
    assert watts_of(line) == (None if watts is None else pytest.approx(watts))


def test_what_is_not_there_is_not_measured_and_what_was_asked_for_is_named(tmp_path: Path) -> None:
    assert open_meter("auto", tmp_path) is None
    assert open_meter("none", tmp_path) is None
    for wanted, named in (("rapl", "'rapl'"), ("plug", "'plug'"), ("serial:/nowhere", "/nowhere"), ("serial:x@7", "7")):
        with pytest.raises(OperatorError, match=named):
            open_meter(wanted, tmp_path)


def test_operators_are_medians_by_node_without_the_first_runs() -> None:
    def event(name: str, kind: str, microseconds: float) -> dict[str, object]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": {"op_name": kind}}

    runs = 45
    events = [event("conv", "Conv", 9000.0 if run < 5 else 30.0) for run in range(runs)]
    events += [event("relu", "Relu", 10.0) for _ in range(runs)]
    events += [{"cat": "Session", "name": "model_run", "dur": 1e9}, {"cat": "Node", "name": "relu_fence_before"}]
    found = costs_of(events, runs)
    assert [(one.name, one.operator) for one in found] == [("conv", "Conv"), ("relu", "Relu")]
    assert (found[0].ms, found[0].share) == (pytest.approx(0.03), pytest.approx(0.75))
    assert by_kind(found)[0] == ("Conv", pytest.approx(0.75), 1)
