"""The toolchain as a library: lazy names, passes on their own, and the same result as the command's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from support.makers import onnx_models

from edge_agent.errors import TensorError
from edge_agent.fallback_ladder import ALIKE, LadderRelease, build_ladder, lightest
from edge_bench.task import read_task
from edge_compression import Front, Options, Release, apply_pass, compress, quantize_static
from edge_compression.pass_api import PassError
from edge_compression.passes import BiasCorrection, Compact
from edge_compression.recipes.recipe import parse_recipe
from edge_contracts.errors import ContractError, OperatorError

MODEL = onnx_models.conv_classifier().SerializeToString()
SAMPLES = [{"x": sample[None]} for sample in onnx_models.samples(32, seed=3)[0]]


def test_importing_the_package_loads_no_tool() -> None:
    code = "import sys, edge_compression; print(sorted({'numpy', 'onnx', 'onnxruntime', 'optuna'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_commands_help_loads_no_tool() -> None:
    code = (
        "import sys\nfrom edge_compression.cli.compress import compress\n"
        "try:\n    compress(['--help'])\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write(str(sorted({'onnx', 'onnxruntime', 'optuna', 'jinja2'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "--max-latency" in done.stdout


def test_a_model_is_quantized_in_one_call_and_another_pass_follows() -> None:
    made = quantize_static(MODEL, SAMPLES, reduce_range=True)
    smaller = apply_pass(Compact(), made)
    assert [change["pass"] for change in smaller.changes] == ["static_int8", "compact"]
    x, y = onnx_models.samples(100, seed=5)
    session = onnxruntime.InferenceSession(smaller.data, providers=["CPUExecutionProvider"])
    answers = np.concatenate([session.run(None, {"x": sample[None]})[0] for sample in x])
    assert np.mean(answers.argmax(axis=1) == y) > 0.8


def test_a_wrong_parameter_is_named() -> None:
    with pytest.raises(ContractError, match=r"quantize_static\.calibrator"):
        quantize_static(MODEL, SAMPLES, calibrator="luck")


def test_a_pass_that_cannot_be_applied_alone_says_so() -> None:
    with pytest.raises(PassError):
        apply_pass(BiasCorrection(), MODEL, SAMPLES)


def _check_face(front: Front, task: Path) -> None:
    """A front in a notebook: shown, indexed, run, explained."""
    assert front.ladder == front.report.ladder == tuple(one.name for one in front)
    assert len(front) == len(front.ladder)
    assert front[0].name == front.ladder[0]
    shown = front._repr_html_()
    assert shown.count("<svg") == 2
    assert "<script" not in shown
    assert all(name in shown for name in front.ladder)
    assert str(front).splitlines()[0].startswith("w 1.0.0 for pi-4")
    x = read_task(task).x[:8]
    session = onnxruntime.InferenceSession(front["float"].path, providers=["CPUExecutionProvider"])
    for given in (x, {"x": x}):
        answered = front["float"].run(given)
        own = session.run(None, {"x": x})[0]
        assert np.allclose(next(iter(answered.values())), own, atol=1e-5)
    for one in front:
        assert next(iter(one.run(x).values())).shape == (8, 4)
        assert one.size == one.path.stat().st_size
    with pytest.raises(TensorError):
        front["float"].run(x[:, :1])
    with pytest.raises(OperatorError, match="no rung") as error:
        front["none"]
    assert "float" in str(error.value.hint)
    assert "rung" in str(front.explain("float"))
    assert front.explain("small")._repr_html_().startswith("<p>small")
    with pytest.raises(OperatorError, match="was not tried"):
        front.explain("none")


@pytest.mark.timeout(120)
def test_compress_returns_the_front_and_writes_the_bundle(tmp_path: Path) -> None:
    task = onnx_models.write_task(tmp_path, count=200)
    recipes = (
        parse_recipe('summary = "f"\n[[passes]]\npass = "compact"\n', "float"),
        parse_recipe('summary = "d"\n[[passes]]\npass = "dynamic_int8"\n', "small"),
    )
    front = compress(
        task, "pi-4", out=tmp_path / "bundle", options=Options(max_drop=2.0), recipes=recipes, release=Release(name="w")
    )
    assert front.manifest.name == "w"
    assert front.report.ladder[-1] == "float"
    assert (front.bundle / "manifest.json").is_file()
    assert front.html.startswith("<!DOCTYPE html>")
    _check_face(front, task)
    assert front.manifest.reference is not None
    assert {one.score for one in front.manifest.variants[-1].conformal} == {"lac", "raps"}
    # The last rung is the float original: a device that is short of something does not take it for the lightest.
    rungs = build_ladder([LadderRelease(role="active", folder="", manifest_sha256="0" * 64, manifest=front.manifest)])
    lighter, memory = lightest(rungs, ["compute"]), lightest(rungs, ["memory"])
    assert lighter is not None
    assert lighter.latency_ms is not None
    assert lighter.latency_ms <= min(one.latency_ms or 0.0 for one in front.manifest.variants) * ALIKE
    assert memory is not None
    assert memory.memory_mb is not None
    assert memory.memory_mb <= min(one.peak_memory_mb or 0.0 for one in front.manifest.variants) * ALIKE
