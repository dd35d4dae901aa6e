"""`bench compare` on real models in real processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edge_bench.cli import bench
from edge_contracts.errors import OperatorError

SIZE = 400


def write_model(path: Path, layers: int) -> Path:
    """Write a model of so many layers of one matrix product each."""
    generator = np.random.default_rng(0)
    weights = [generator.standard_normal((SIZE, SIZE)).astype(np.float32) / 20 for _ in range(layers)]
    names = ["x", *(f"h{index}" for index in range(layers - 1)), "y"]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(layers)]
    shaped = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, SIZE]) for name in ("x", "y")]
    initial = [numpy_helper.from_array(one, f"w{index}") for index, one in enumerate(weights)]
    graph = helper.make_graph(nodes, "m", shaped[:1], shaped[1:], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def compared(*words: object) -> dict[str, object]:
    done = CliRunner().invoke(bench, ["compare", *map(str, words), "--json", "-"], catch_exceptions=False)
    found: dict[str, object] = json.loads(done.output)
    return found


def test_twice_the_work_is_found_and_named(tmp_path: Path) -> None:
    small, large = write_model(tmp_path / "small.onnx", 4), write_model(tmp_path / "large.onnx", 8)
    found = compared(small, large, "--seconds", 1)
    assert found["verdict"] == "a"
    assert found["low"] <= found["ratio"] <= found["high"]  # type: ignore[operator]
    assert compared(large, small, "--seconds", 1)["verdict"] == "b"


def test_reports_of_measure_are_compared(tmp_path: Path) -> None:
    for name, layers in (("one", 4), ("two", 16)):
        model = write_model(tmp_path / f"{name}.onnx", layers)
        words = [str(model), "--seconds", "0.5", "--json", str(tmp_path / f"{name}.json")]
        assert CliRunner().invoke(bench, words, catch_exceptions=False).exit_code == 0
    assert compared(tmp_path / "one.json", tmp_path / "two.json:two")["verdict"] == "a"


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx", 1)
    for words, named in ((("no.onnx", model), "no.onnx"), ((model, "r.json"), "two reports")):
        with pytest.raises(OperatorError, match=named):
            CliRunner().invoke(bench, ["compare", *map(str, words)], catch_exceptions=False, standalone_mode=False)
