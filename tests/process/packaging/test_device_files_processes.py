"""What `test_device_files.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from support.boxes import syscall_filters
from support.parts.device_files import UNIT


def needs(program: str) -> None:
    """Skip the test where `program` is not installed, but not in CI."""
    if shutil.which(program) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is not installed in CI")
        pytest.skip(f"{program} is not installed")


def test_systemd_accepts_the_unit_and_rates_it_hardened(tmp_path: Path) -> None:
    needs("systemd-analyze")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/edgewright/bin/edgewright", sys.executable))
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
