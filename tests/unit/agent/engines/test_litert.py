"""LiteRT: a real TFLite model alone, resized, and behind an ONNX variant on one ladder."""

import numpy as np
import pytest
from support.makers import bundles
from support.makers.tflite_files import custom_tflite, external_tflite, linear_tflite

from edge_agent import Runtime
from edge_agent.engines.registry import engine_for
from edge_agent.errors import EngineError
from edge_agent.ports import EngineSettings
from edge_contracts.manifest import Variant

X, Y = bundles.samples(5)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(linear_tflite(bundles.WEIGHTS))
    return path


@pytest.mark.parametrize("optimize", [True, False])
def test_a_batch_of_another_size_resizes_the_model(model, optimize):
    session = engine_for("tflite").load(model, EngineSettings(optimize=optimize))
    assert [(info.name, info.dtype, info.shape) for info in session.inputs] == [("x", "float32", (-1, 4))]
    for rows in (X, X[:1], X[:3]):
        np.testing.assert_allclose(session.run({"x": rows})["y"], rows @ bundles.WEIGHTS, atol=1e-5)
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session.run({"x": X})


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x1c\x00\x00\x00TFL3" + b"\xff" * 64])
def test_bytes_that_are_no_model_are_refused_by_name(model, data):
    model.write_bytes(data)
    with pytest.raises(EngineError, match=r"m\.tflite"):
        engine_for("tflite").load(model, EngineSettings())


def test_external_buffers_are_refused(model):
    model.write_bytes(external_tflite(bundles.WEIGHTS))
    with pytest.raises(EngineError, match="in another file"):
        engine_for("tflite").load(model, EngineSettings())


def test_an_operator_of_the_authors_own_library_is_refused(model):
    model.write_bytes(custom_tflite(bundles.WEIGHTS))
    with pytest.raises(EngineError, match=r"m\.tflite"):
        engine_for("tflite").load(model, EngineSettings())


def test_a_wrong_shape_is_an_error_and_the_session_goes_on(model):
    session = engine_for("tflite").load(model, EngineSettings())
    with pytest.raises(EngineError):
        session.run({"x": np.zeros((1, 5), np.float32)})
    assert (session.run({"x": X})["y"].argmax(axis=1) == Y).all()


def test_a_tflite_variant_is_a_rung_like_any_other(tmp_path, model):
    made = bundles.make_bundle(tmp_path / "b")
    model.rename(made.folder / "models/lite.tflite")
    size = (made.folder / "models/lite.tflite").stat().st_size
    lite = Variant(id="lite", file="models/lite.tflite", format="tflite", size=size)
    bundles.seal(made.folder, bundles.fields_of(made) | {"variants": (*made.manifest.variants, lite)})
    with Runtime.open(made.folder) as runtime:
        assert runtime.prefer("lite") == "local:1.0.0/lite"
        answer = runtime.infer({"x": X})
        assert answer.served_by == "local:1.0.0/lite"
        assert (answer.outputs["y"].argmax(axis=1) == Y).all()
