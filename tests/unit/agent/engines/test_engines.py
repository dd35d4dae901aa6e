"""The engines: what they load, what they refuse, their cache, and failed allocations."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.makers import bundles
from support.parts.engines import write

from edge_agent.engines.registry import engine_for
from edge_agent.errors import EngineError, EngineMissingError
from edge_agent.ports import EngineSettings

X, Y = bundles.samples(4)


def _external(location, **entries):
    weights = numpy_helper.from_array(bundles.WEIGHTS, "w")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weights.external_data.add(key=key, value=value)
    return weights


def _model(*, initializers=(), nodes=None, outputs=None):
    graph = helper.make_graph(
        nodes or [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        outputs or [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_onnx_runs_with_dynamic_batch(tmp_path):
    session = engine_for("onnx").load(write(tmp_path / "m.onnx", bundles.linear_model()), EngineSettings())
    assert [(info.name, info.dtype, info.shape) for info in session.inputs] == [("x", "float32", (-1, 4))]
    assert (session.run({"x": X})["y"].argmax(axis=1) == Y).all()
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session.run({"x": X})


def test_unoptimized_and_optimized_agree(tmp_path):
    path = write(tmp_path / "m.onnx", bundles.linear_model())
    plain = engine_for("onnx").load(path, EngineSettings(optimize=False)).run({"x": X})["y"]
    np.testing.assert_allclose(engine_for("onnx").load(path, EngineSettings()).run({"x": X})["y"], plain, rtol=1e-5)


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "weights.bin"])
def test_external_data_is_refused(tmp_path, location):
    (tmp_path / "weights.bin").write_bytes(bundles.WEIGHTS.tobytes())
    path = write(tmp_path / "m.onnx", _model(initializers=[_external(location)]).SerializeToString())
    with pytest.raises(EngineError, match=r"m\.onnx: a tensor's data is in another file"):
        engine_for("onnx").load(path, EngineSettings())


def test_external_data_hidden_in_a_branch_is_refused(tmp_path):
    value = helper.make_tensor_value_info("b", TensorProto.FLOAT, [4, 3])
    branch = helper.make_graph([helper.make_node("Constant", [], ["b"], value=_external("../w"))], "b", [], [value])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    path = write(tmp_path / "m.onnx", _model(nodes=nodes).SerializeToString())
    with pytest.raises(EngineError, match="another file"):
        engine_for("onnx").load(path, EngineSettings())


def test_a_model_that_only_mentions_a_location_is_served(tmp_path):
    model = _model(initializers=[numpy_helper.from_array(bundles.WEIGHTS, "w")])
    model.metadata_props.add(key="location", value="../../etc/passwd")
    model.graph.doc_string = "location"
    session = engine_for("onnx").load(write(tmp_path / "m.onnx", model.SerializeToString()), EngineSettings())
    assert session.run({"x": X})["y"].shape == (4, 3)


@pytest.mark.parametrize("data", [b"", b"not a model", b"location \x0a\xff\xff\xff\xff\xff\xff", b"ORTM" * 8])
def test_bytes_that_are_no_model_are_refused_by_name(tmp_path, data):
    with pytest.raises(EngineError, match=r"m\.onnx"):
        engine_for("onnx").load(write(tmp_path / "m.onnx", data), EngineSettings())


def test_a_missing_file_and_an_unknown_format_are_typed(tmp_path):
    with pytest.raises(EngineError, match=r"gone\.onnx"):
        engine_for("onnx").load(tmp_path / "gone.onnx", EngineSettings())
    with pytest.raises(EngineMissingError):
        engine_for("pickle")


def test_the_optimized_model_is_cached_and_a_damaged_cache_is_rebuilt(tmp_path):
    path = write(tmp_path / "m.onnx", bundles.linear_model())
    settings = EngineSettings(cache=tmp_path / "cache")
    engine_for("onnx").load(path, settings)
    (cached,) = (tmp_path / "cache").iterdir()
    for damage in (b"", b"\x00" * 100):
        cached.write_bytes(damage)
        assert engine_for("onnx").load(path, settings).run({"x": X})["y"].shape == (4, 3)
        assert onnx.load(cached).graph.node


def test_a_cache_that_cannot_be_written_costs_only_the_cache(tmp_path):
    (tmp_path / "file").write_text("in the way")
    path = write(tmp_path / "m.onnx", bundles.linear_model())
    session = engine_for("onnx").load(path, EngineSettings(cache=tmp_path / "file" / "cache"))
    assert session.run({"x": X})["y"].shape == (4, 3)


def test_a_shape_the_model_cannot_take_is_an_engine_error(tmp_path):
    session = engine_for("onnx").load(write(tmp_path / "m.onnx", bundles.linear_model()), EngineSettings())
    with pytest.raises(EngineError):
        session.run({"x": np.zeros((1, 5), np.float32)})
