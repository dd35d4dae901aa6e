"""What `test_device_files.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from support.boxes import syscall_filters
from support.parts.device_files import SERVICES, UNIT, command_of, service_unit
from support.sites.identity_site import TlsSite

from edgewright.demo.stage import run


def needs(program: str) -> None:
    """Skip the test where `program` is not installed, but not in CI."""
    if shutil.which(program) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is not installed in CI")
        pytest.skip(f"{program} is not installed")


@pytest.mark.parametrize("unit", [UNIT, *map(service_unit, SERVICES)], ids=lambda unit: unit.stem)
def test_systemd_accepts_the_unit_and_rates_it_hardened(tmp_path: Path, unit: Path) -> None:
    needs("systemd-analyze")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/edgewright/bin/edgewright", sys.executable))
    verify = subprocess.run(["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True)
    assert (verify.returncode, verify.stderr) == (0, "")
    rating = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", str(copy)],
        capture_output=True,
        text=True,
    )
    assert rating.returncode == 0, rating.stdout[-300:]


def test_onnxruntime_runs_under_the_units_system_call_filter(tmp_path: Path) -> None:
    needs("systemd-analyze")
    node = helper.make_node("Relu", ["x"], ["y"])
    shape = [None, 4]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    model = helper.make_model(
        helper.make_graph([node], "relu", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.save(model, tmp_path / "relu.onnx")
    calls = syscall_filters.allowed_calls(UNIT)
    assert "mount" not in calls
    script = Path(syscall_filters.__file__)
    arguments = [sys.executable, str(script), ",".join(sorted(calls)), str(tmp_path / "relu.onnx")]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=50)
    assert result.stdout.split() == ["4.0", "True"], result.stderr


@pytest.mark.timeout(120)
def test_fleets_services_run_as_their_units_start_them_without_what_these_hide(tmp_path: Path) -> None:
    """Each is started by its unit's own words, on a broker with the shipped configuration."""
    site = TlsSite(tmp_path)
    with site.broker, site:
        for name in SERVICES:
            run("fleet", "authority", "service", str(site.fleet), name, "--out", str(site.fleet / "tls"))
        for name in SERVICES:
            unit = service_unit(name)
            hidden = re.findall(r"-/var/lib/edgewright-fleet/fleet/(\w+)", unit.read_text())
            assert hidden, "every one of them is kept from something"
            away = [(site.fleet / part, tmp_path / f"{name}-{part}") for part in hidden]
            for path, aside in away:
                path.rename(aside)
            asked = command_of(unit, FLEET=str(site.fleet), BROKER=f"127.0.0.1:{site.broker.port}")
            site.start(name, *asked, ready=f"{name} ready")
            site.stop(name)
            for path, aside in away:
                aside.rename(path)
