"""TFLite models: quantized by ai-edge-quantizer, measured with LiteRT, in the same flow."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from click.testing import CliRunner
from support.makers import onnx_models
from support.makers.tflite_models import Sketch, answers, dense_classifier, dense_constants, parsed

from edge_agent.bundle import open_bundle
from edge_compression.cli.compress import compress
from edge_compression.pass_api import Context
from edge_compression.passes import TfliteCompact, TfliteInt8
from edge_compression.passes.tflite_int8 import prepared, tensor_ranges

# The quantizer opens an interpreter of its own that warns of the memory it takes.
pytestmark = pytest.mark.filterwarnings("ignore:Warning. Enabling .experimental_preserve_all_tensors:UserWarning")

RECIPES = Path(__file__).resolve().parents[4] / "compression" / "recipes"


def test_the_signature_and_names_that_the_quantizer_needs_are_lent_and_taken_back() -> None:
    nameless = TfliteCompact().apply(dense_classifier(), calibration()).model
    lent = parsed(prepared(nameless))
    assert all(tensor.name for tensor in lent.subgraphs[0].tensors)
    assert [one.tensorIndex for one in lent.signatureDefs[0].inputs] == [0]
    made = TfliteInt8(mode="weight_only").apply(nameless, calibration()).model
    assert not parsed(made).signatureDefs
    signed = prepared(dense_classifier())
    assert prepared(signed) == signed
    kept = parsed(TfliteInt8(mode="weight_only").apply(signed, calibration()).model)
    assert kept.signatureDefs[0].inputs[0].name == b"x"


def calibration(scale: float = 1.0) -> Context:
    """Return samples of ordinary size and, last but one, a single one `scale` times as large."""
    x, _ = onnx_models.samples(40, seed=3)
    flat = x.reshape(40, -1)
    flat[-2] *= scale
    return Context(calibration=lambda: ({"x": one[None]} for one in flat), unquantized=b"")


def test_ranges_are_the_extremes_of_all_samples_however_rare() -> None:
    context = calibration(scale=10.0)
    found = tensor_ranges(dense_classifier(), context, histograms=False)
    x = np.concatenate([feeds["x"] for feeds in context.calibration()])
    first, bias, last, offset = dense_constants()
    hidden = np.maximum(x @ first.T + bias, 0)
    for name, values in {"x": x, "hidden": hidden, "logits": hidden @ last.T + offset}.items():
        np.testing.assert_allclose(found[name].low, values.min(), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found[name].high, values.max(), rtol=1e-4, atol=1e-4)
    assert found.keys() == {"x", "hidden", "logits"}


@pytest.mark.parametrize("mode", ["static", "dynamic", "weight_only"])
def test_every_mode_takes_and_gives_floats_and_keeps_the_answers(mode: Any) -> None:
    original = dense_classifier()
    applied = TfliteInt8(mode=mode).apply(original, calibration())
    x, _ = onnx_models.samples(200, seed=4)
    flat = x.reshape(len(x), -1)
    truth, found = answers(original, flat), answers(applied.model, flat)
    assert len(applied.model) < 0.5 * len(original)
    assert np.mean(truth.argmax(1) == found.argmax(1)) > 0.94
    assert np.abs(found - truth).max() < 0.05 * np.ptp(truth)


def with_softmax(model: bytes) -> bytes:
    """Return the classifier with probabilities for answers."""
    sketch = Sketch()
    sketch.model = parsed(model)
    sketch.graph = sketch.model.subgraphs[0]
    given, logits = int(sketch.graph.inputs[0]), int(sketch.graph.outputs[0])
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    probabilities = sketch.tensor("probabilities", (1, 4))
    sketch.operator("SOFTMAX", [logits], probabilities, options)
    return sketch.done(given, probabilities)


def test_probabilities_of_a_static_model_are_not_rounded_to_eight_bits() -> None:
    applied = TfliteInt8().apply(with_softmax(dense_classifier()), calibration())
    x, _ = onnx_models.samples(50, seed=4)
    found = answers(applied.model, x.reshape(50, -1))
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)
    assert np.mean(np.abs(found * 256 - np.rint(found * 256)) > 1e-3) > 0.5


def test_a_calibrator_that_clips_is_not_led_by_a_single_sample() -> None:
    original, context = dense_classifier(), calibration(scale=30.0)
    x, _ = onnx_models.samples(200, seed=4)
    flat = x.reshape(200, -1)
    truth = answers(original, flat)
    clipped, whole = (TfliteInt8(calibrator=name).apply(original, context).model for name in ("average", "minmax"))
    assert np.abs(answers(clipped, flat) - truth).mean() < 0.5 * np.abs(answers(whole, flat) - truth).mean()


def test_a_tflite_task_ends_with_a_bundle_of_eight_bit_variants(tmp_path: Path) -> None:
    x, y = onnx_models.samples(300, seed=2)
    calibration, _ = onnx_models.samples(64, seed=3)
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
