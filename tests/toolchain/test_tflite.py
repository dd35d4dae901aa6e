"""TFLite models: quantised by ai-edge-quantizer, measured with LiteRT, in the same flow."""

import json
import shutil
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
import toolchain_models
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from click.testing import CliRunner

from edge_agent.bundle import open_bundle
from edge_compression.cli import compress
from edge_compression.contract import Context
from edge_compression.passes.tflite_int8 import TfliteInt8, tensor_ranges, with_signature

INPUTS = toolchain_models.CHANNELS * toolchain_models.LENGTH
HIDDEN = 64
RECIPES = Path(__file__).resolve().parents[2] / "compression" / "recipes"


def dense_constants() -> list[Any]:
    """Return weights and biases of two fully connected layers, the first random, the second fitted."""
    generator = np.random.default_rng(0)
    first = (generator.standard_normal((HIDDEN, INPUTS)) / 6).astype(np.float32)
    bias = generator.standard_normal(HIDDEN).astype(np.float32)
    x, y = toolchain_models.samples(1500, seed=1)
    hidden = np.maximum(x.reshape(len(x), -1) @ first.T + bias, 0)
    design = np.hstack([hidden, np.ones((len(x), 1))])
    fitted = np.linalg.lstsq(design, np.eye(4)[y] * 5.0, rcond=None)[0].astype(np.float32)
    return [first, bias, np.ascontiguousarray(fitted[:-1].T), fitted[-1]]


def dense_classifier() -> bytes:
    """Return them as a TFLite model, as older converters write it: without a signature."""
    return _packed(dense_constants())


def _packed(constants: list[Any]) -> bytes:
    buffers = [schema.BufferT()]
    for values in constants:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        buffers.append(buffer)
    shapes = [("x", [1, INPUTS], 0), ("hidden", [1, HIDDEN], 0), ("logits", [1, 4], 0)]
    shapes += [(f"constant{index}", list(values.shape), index + 1) for index, values in enumerate(constants)]
    graph = schema.SubGraphT()
    graph.tensors = [_tensor(*shape) for shape in shapes]
    graph.inputs, graph.outputs = [0], [2]
    relu = schema.ActivationFunctionType.RELU
    graph.operators = [_dense([0, 3, 4], 1, relu), _dense([1, 5, 6], 2, schema.ActivationFunctionType.NONE)]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], buffers
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(name: str, shape: list[int], buffer: int) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name.encode(), shape, buffer
    tensor.type = schema.TensorType.FLOAT32
    return tensor


def _dense(inputs: list[int], output: int, activation: int) -> Any:
    options = schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = activation
    node = schema.OperatorT()
    node.opcodeIndex, node.inputs, node.outputs = 0, inputs, [output]
    node.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    node.builtinOptions = options
    return node


def test_a_model_without_a_signature_gets_one_and_a_model_with_one_is_left() -> None:
    signed = with_signature(dense_classifier())
    assert with_signature(signed) == signed
    assert len(signed) > len(dense_classifier())


def calibration(scale: float = 1.0) -> Context:
    """Return samples of ordinary size and, last but one, a single one `scale` times as large."""
    x, _ = toolchain_models.samples(40, seed=3)
    flat = x.reshape(40, -1)
    flat[-2] *= scale
    return Context(calibration=lambda: ({"x": one[None]} for one in flat), unquantised=b"")


def answers(model: bytes, x: Any) -> Any:
    interpreter = Interpreter(
        model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    interpreter.allocate_tensors()
    fed, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert fed["dtype"] == given["dtype"] == np.float32
    found = []
    for one in x.reshape(len(x), 1, -1):
        interpreter.set_tensor(fed["index"], one)
        interpreter.invoke()
        found.append(interpreter.get_tensor(given["index"])[0])
    return np.array(found)


def test_ranges_are_the_extremes_of_all_samples_however_rare() -> None:
    context = calibration(scale=10.0)
    found = tensor_ranges(dense_classifier(), context)
    x = np.concatenate([feeds["x"] for feeds in context.calibration()])
    first, bias, last, offset = dense_constants()
    hidden = np.maximum(x @ first.T + bias, 0)
    for name, values in {"x": x, "hidden": hidden, "logits": hidden @ last.T + offset}.items():
        np.testing.assert_allclose(found[name]["min"].item(), values.min(), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found[name]["max"].item(), values.max(), rtol=1e-4, atol=1e-4)
    assert found.keys() == {"x", "hidden", "logits"}


# The quantizer opens an interpreter of its own that warns of the memory it takes.
@pytest.mark.filterwarnings("ignore:Warning. Enabling .experimental_preserve_all_tensors:UserWarning")
@pytest.mark.parametrize("mode", ["static", "dynamic", "weight_only"])
def test_every_mode_takes_and_gives_floats_and_keeps_the_answers(mode: Any) -> None:
    original = dense_classifier()
    applied = TfliteInt8(mode=mode).apply(original, calibration())
    x, _ = toolchain_models.samples(200, seed=4)
    truth, found = answers(original, x), answers(applied.model, x)
    assert len(applied.model) < 0.5 * len(original)
    assert np.mean(truth.argmax(1) == found.argmax(1)) > 0.94
    assert np.abs(found - truth).max() < 0.05 * np.ptp(truth)


def test_a_tflite_task_ends_with_a_bundle_of_eight_bit_variants(tmp_path: Path) -> None:
    x, y = toolchain_models.samples(300, seed=2)
    calibration, _ = toolchain_models.samples(64, seed=3)
    flat = {"x": x.reshape(300, -1), "y": y, "calib_x": calibration.reshape(64, -1)}
    np.savez(tmp_path / "dense.npz", **flat)
    (tmp_path / "dense.tflite").write_bytes(dense_classifier())
    (tmp_path / "dense.toml").write_text(
        'name = "dense"\nmodel = "dense.tflite"\n[data]\nfile = "dense.npz"\n[input]\ndtype = "float32"\n'
    )
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    for name in ("tflite-float", "tflite-int8-static"):
        shutil.copy(RECIPES / f"{name}.toml", recipes)
    words = [str(tmp_path / "dense.toml"), "--profile", "pi-4", "--max-drop", "2", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(
        compress,
        [*words, "--recipes", str(recipes), "--json", "--variations", "0", "--budget", "10m"],
        catch_exceptions=False,
    )
    report = json.loads(done.stdout)
    assert {one["status"] for one in report["candidates"]} <= {"kept", "left out", "duplicate"}
    assert report["eight_bit"]["in_ladder"]
    manifest = open_bundle(tmp_path / "out").manifest
    assert manifest.variants[-1].id == "tflite-float"
    assert all(one.format == "tflite" for one in manifest.variants)
    assert manifest.requirements.engines[0].name == "litert"
    assert manifest.requirements.engines[0].minimum == "2.0"
