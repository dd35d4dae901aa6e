"""`edgewright bundle create`: any model that an engine runs becomes a bundle that a device's trial accepts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edge_agent import Runtime
from edge_agent.bundle import open_bundle
from edge_agent.cli.bundle import bundle
from edge_agent.inference.samples import read_arrays
from edge_agent.ipc.trial import TrialPlan
from edge_agent.trial.__main__ import run_trial
from edge_contracts.errors import EdgewrightError, OperatorError
from edge_contracts.manifest import Manifest

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
W = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)


def tensor(name: str, shape: list[Any], kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def save(
    path: Path, nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto],
    **constants: np.ndarray[Any, Any],
) -> Path:  # fmt: skip
    made = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, made)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def create(tmp_path: Path, *words: str) -> Manifest:
    out = tmp_path / "made"
    done = CliRunner().invoke(bundle, ["create", *words, "--out", str(out), "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["bundle"] == str(out)
    report = run_trial(TrialPlan(folder=str(out), time_s=60.0))
    assert [one.reason for one in report.variants] == ["ok"], report
    return open_bundle(out).manifest


def matmul(path: Path, shape: list[Any]) -> Path:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return save(path, nodes, [tensor("x", shape)], [tensor("y", shape)], w=W)


def test_a_model_without_metric_or_samples_is_served_as_the_engine_answers(tmp_path: Path) -> None:
    manifest = create(tmp_path, str(matmul(tmp_path / "My model.onnx", [None, 4])))
    assert (manifest.name, manifest.metric, manifest.probe) == ("My-model", None, None)
    assert manifest.total_bytes < manifest.variants[0].size + 65536
    x = np.ones((1, 4), np.float32)
    with Runtime.open(tmp_path / "made") as runtime:
        np.testing.assert_allclose(runtime.infer({"x": x}).outputs["y"], x @ W, rtol=1e-5)


def test_open_sizes_are_asked_for_and_then_used(tmp_path: Path) -> None:
    path = str(matmul(tmp_path / "m.onnx", [None, None, 4]))
    with pytest.raises(OperatorError, match="x"):
        create(tmp_path, path)
    assert not (tmp_path / "made").exists()
    create(tmp_path, path, "--shape", "x=1,7,4")
    arrays = read_arrays(tmp_path / "made" / "golden.npz", what="golden")
    assert arrays["input_0"].shape[1:] == (7, 4)


def test_a_state_is_fed_back_and_a_constant_filled_in(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["sr"], ["gain"], to=FLOAT),
        helper.make_node("Mul", ["x", "gain"], ["louder"]),
        helper.make_node("Add", ["louder", "state"], ["stateN"]),
        helper.make_node("Identity", ["stateN"], ["y"]),
    ]
    inputs = [tensor("x", [None, 4]), tensor("sr", [], INT64), tensor("state", [None, 4])]
    path = save(tmp_path / "m.onnx", nodes, inputs, [tensor("y", [None, 4]), tensor("stateN", [None, 4])])
    manifest = create(tmp_path, str(path), "--constant", "sr=2", "--feedback", "state=stateN")
    assert [(one.constant, one.feedback) for one in manifest.inputs] == [(None, None), ((2,), None), (None, "stateN")]
    arrays = read_arrays(tmp_path / "made" / "golden.npz", what="golden")
    x: Any = arrays["input_0"]
    np.testing.assert_allclose(arrays["original/output_0"], np.cumsum(2 * x, axis=1))


def test_samples_are_what_golden_answers_are_to(tmp_path: Path) -> None:
    path = matmul(tmp_path / "m.onnx", [None, 4])
    x = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.savez(tmp_path / "s.npz", x=x)
    manifest = create(tmp_path, str(path), "--samples", str(tmp_path / "s.npz"))
    arrays = read_arrays(tmp_path / "made" / "golden.npz", what="golden")
    np.testing.assert_array_equal(arrays["input_0"], x)
    assert manifest.inputs[0].sample.dtype == "uint8"
    np.testing.assert_allclose(arrays["original/output_0"], x.astype(np.float32) @ W, rtol=1e-5)


def test_outputs_of_any_shape_have_golden_answers(tmp_path: Path) -> None:
    """Rows that differ from sample to sample, a scalar, a fixed batch, an output that changes at every run."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("RandomNormalLike", ["x"], ["noise"]),
    ]
    inputs = [tensor("x", [4, 3], TensorProto.BOOL)]
    cast = helper.make_node("Cast", ["x"], ["f"], to=FLOAT)
    nodes[1].input[0] = nodes[2].input[0] = "f"
    outputs = [tensor("places", [2, None], INT64), tensor("total", []), tensor("noise", [4, 3])]
    path = save(tmp_path / "m.onnx", [cast, *nodes], inputs, outputs)
    manifest = create(tmp_path, str(path))
    assert manifest.golden is not None
    assert manifest.golden.samples == 1
    assert manifest.variants[0].tolerance > 1, "an output is random"


def test_infinite_scores_of_what_is_masked_out_are_answers_and_nan_is_none(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("Where", ["mask", "hidden", "scores"], ["y"]),
    ]
    masked = {"mask": np.array([True, False, False, False]), "hidden": np.float32(-np.inf)}
    path = save(
        tmp_path / "m.onnx", nodes, [tensor("x", [None, 4])], [tensor("y", [None, 4])], w=W,
        **{name: np.asarray(value) for name, value in masked.items()},
    )  # fmt: skip
    manifest = create(tmp_path, str(path))
    assert manifest.outputs[0].infinite == "-inf"
    x = np.ones((1, 4), np.float32)
    expected = np.where(masked["mask"], -np.inf, x @ W).astype(np.float32)
    with Runtime.open(tmp_path / "made") as runtime:
        for _ in range(3):  # the express lane opens after the first
            answer = runtime.infer({"x": x})
            assert answer.served_by.endswith("original")
            np.testing.assert_allclose(answer.outputs["y"], expected, rtol=1e-5)
        assert runtime.infer({"x": np.full((1, 4), 3e38, np.float32)}).abstained, "overflow"


def test_a_fixed_batch_is_served_as_such(tmp_path: Path) -> None:
    """The trial and the runtime warm up on golden samples, each of which is a batch here."""
    create(tmp_path, str(matmul(tmp_path / "m.onnx", [4, 4])))
    x = np.arange(16, dtype=np.float32).reshape(4, 4)
    with Runtime.open(tmp_path / "made") as runtime:
        answer = runtime.infer({"x": x})
    assert answer.served_by.endswith("original")
    np.testing.assert_allclose(answer.outputs["y"], x @ W, rtol=1e-5)


def test_data_beside_the_model_comes_into_the_bundle(tmp_path: Path) -> None:
    whole = onnx.load(matmul(tmp_path / "m.onnx", [None, 4]))
    onnx.save(whole, tmp_path / "split.onnx", save_as_external_data=True, location="split.data", size_threshold=0)
    create(tmp_path, str(tmp_path / "split.onnx"))
    with Runtime.open(tmp_path / "made") as runtime:
        x = np.ones((1, 4), np.float32)
        np.testing.assert_allclose(runtime.infer({"x": x}).outputs["y"], x @ W, rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--constant", "nope=1"], "no input 'nope'"),
        (["--constant", "x"], "NAME=VALUE"),
        (["--constant", "x=one"], "numbers"),
        (["--feedback", "x=y"], "nothing is left"),
        (["--feedback", "x=z"], "no output"),
        (["--shape", "x=1,5"], "does not fit"),
        (["--name", "a/b"], "name"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_left_behind(tmp_path: Path, words: list[str], said: str) -> None:
    path = matmul(tmp_path / "m.onnx", [None, 4])
    with pytest.raises(EdgewrightError, match=said):
        create(tmp_path, str(path), *words)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.onnx"]


def test_a_task_gives_samples_labels_and_processing(tmp_path: Path) -> None:
    from support.makers import onnx_models

    task = onnx_models.write_task(tmp_path)
    manifest = create(tmp_path, str(tmp_path / "waves.onnx"), "--task", str(task))
    assert manifest.name == "waves"
    assert manifest.metric is None


def test_a_task_with_several_inputs_gives_each_its_own(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "gain"], ["y"])]
    inputs = [tensor("x", [None, 4]), tensor("gain", [1])]
    model = save(tmp_path / "m.onnx", nodes, inputs, [tensor("y", [None, 4])])
    np.savez(tmp_path / "d.npz", x=np.arange(80, dtype=np.uint8).reshape(20, 4))
    text = 'name = "m"\nmodel = "m.onnx"\n[data]\nfile = "d.npz"\n'
    (tmp_path / "m.toml").write_text(text + '[inputs.x]\ndata = "x"\nscale = 0.5\n[inputs.gain]\nconstant = 3.0\n')
    manifest = create(tmp_path, str(model), "--task", str(tmp_path / "m.toml"))
    assert [one.constant for one in manifest.inputs] == [None, (3.0,)]
    arrays = read_arrays(tmp_path / "made" / "golden.npz", what="golden")
    np.testing.assert_allclose(arrays["original/output_0"][0], arrays["input_0"][0].astype(np.float32) * 1.5)
