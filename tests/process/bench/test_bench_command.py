"""The command `edgewright bench`."""

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper
from support.makers import onnx_models

from edge_bench.benchmark import MOST_KEPT
from edge_bench.cli import bench
from edge_contracts.errors import OperatorError


def test_json_on_standard_output_is_one_document_with_raw_samples(tmp_path: Path) -> None:
    task = onnx_models.write_task(tmp_path)
    words = [str(tmp_path / "waves.onnx"), "--task", str(task), "--seconds", "0.1", "--json", "-"]
    done = CliRunner().invoke(bench, words, catch_exceptions=False)
    report = json.loads(done.stdout)
    (one,) = report["subjects"]
    assert one["score"] > 0.9
    assert len(one["rounds_ms"]) == 7
    kept = [len(values) for values in one["rounds_ms"]]
    assert one["latency"]["count"] >= sum(kept) > 0
    assert max(kept) <= MOST_KEPT  # a quick machine measures more than a report holds
    assert report["environment"]["versions"]["onnxruntime"]


def test_without_a_task_a_model_is_measured_on_random_inputs(tmp_path: Path) -> None:
    onnx_models.write_task(tmp_path)
    out = tmp_path / "report.json"
    words = [str(tmp_path / "waves.onnx"), "--seconds", "0.1", "--json", str(out)]
    done = CliRunner().invoke(bench, words, catch_exceptions=False)
    assert "random inputs" in done.stdout
    assert json.loads(out.read_text())["metric"] is None


@pytest.mark.parametrize("name", ["absent.onnx", "waves.npz"])
def test_what_is_no_model_is_refused_by_name(tmp_path: Path, name: str) -> None:
    onnx_models.write_task(tmp_path)
    with pytest.raises(OperatorError, match=name):
        CliRunner().invoke(bench, [str(tmp_path / name)], catch_exceptions=False)


def test_a_model_with_open_sizes_is_not_measured_at_one_in_silence(tmp_path: Path) -> None:
    shape = [None, 3, None, None]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", infos[:1], infos[1:])
    model = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    with pytest.raises(OperatorError, match="left open") as caught:
        CliRunner().invoke(bench, [str(model), "--seconds", "0.1"], catch_exceptions=False)
    assert "--shape x=1,3,N,N" in str(caught.value.hint)
    words = [str(model), "--seconds", "0.1", "--shape", "x=1,3,8,9", "--json", "-"]
    done = CliRunner().invoke(bench, words, catch_exceptions=False)
    assert json.loads(done.stdout)["inputs"] == "random inputs x float32 [1, 3, 8, 9]"


@pytest.mark.parametrize(("option", "file"), [("--html", "no/page.html"), ("--json", "no/r.json"), ("--csv", "-")])
def test_files_that_cannot_be_written_are_named_before_anything_is_measured(option: str, file: str) -> None:
    with pytest.raises(OperatorError, match=option):
        CliRunner().invoke(bench, ["absent.onnx", option, file], catch_exceptions=False)
