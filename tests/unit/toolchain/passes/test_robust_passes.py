"""A pass that fails, has nothing to do or makes a file larger costs its recipe that pass and nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_compression.onnx_tools.graph import load, opset, session
from edge_compression.pass_api import Context, NothingToDoError, PassError
from edge_compression.passes import Compact, DynamicInt8, Float16, Simplify, StaticInt8, WeightOnly
from edge_compression.recipes.recipe import load_recipes
from edge_compression.search.build_process import BuildPlan, BuildRefused, Built, apply_recipe
from edge_contracts.manifest import Input, SampleMapping

GENERATOR = np.random.default_rng(0)


def model(nodes: list[Any], constants: dict[str, Any], shape: list[Any], version: int = 17, **more: Any) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), *more.pop("listed", [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", version)] if version else [helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=imports, **{"ir_version": 8} | more).SerializeToString())


def weights(*shape: int) -> Any:
    return GENERATOR.standard_normal(shape).astype(np.float32)


def context(data: bytes, shape: tuple[int, ...]) -> Context:
    x = np.random.default_rng(1).standard_normal((8, *shape)).astype(np.float32)
    return Context(calibration=lambda: ({"x": one[None]} for one in x), unquantized=data)


def dense() -> bytes:
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"]), helper.make_node("MatMul", ["h", "v"], ["y"])]
    return model(nodes, {"w": weights(32, 32), "b": weights(32), "v": weights(32, 16)}, [None, 32])


def trees() -> bytes:
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LT", "LEAF", "LEAF"],
        nodes_values=[0.0, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        nodes_missing_value_tracks_true=[1, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[1.0, 2.0],
    )
    return model([node], {}, [None, 32], version=0)


def expanding() -> bytes:
    nodes = [helper.make_node("Expand", ["c", "to"], ["big"]), helper.make_node("Add", ["x", "big"], ["y"])]
    to = np.array([1, 4, 128, 128])
    return model(nodes, {"c": weights(1, 4, 1, 1), "to": to}, [None, 4, 128, 128])


def quantized() -> bytes:
    """A matrix product with learned scales, as quantization-aware training writes it."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], axis=1),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    integers = GENERATOR.integers(-127, 128, (32, 32)).astype(np.int8)
    scales = {"s": np.float32(0.03), "ws": np.full(32, 0.01, np.float32)}
    zeros = {"z": np.uint8(128), "wz": np.zeros(32, np.int8)}
    return model(nodes, {"wq": integers, **scales, **zeros}, [None, 32])


def half() -> bytes:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["h", "w"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
    ]
    return model(nodes, {"w": weights(32, 32).astype(np.float16)}, [None, 32])


def plan(tmp_path: Path, data: bytes, recipe: str, shape: tuple[int, ...] = (32,)) -> BuildPlan:
    (tmp_path / "m.onnx").write_bytes(data)
    x = np.random.default_rng(1).standard_normal((8, *shape)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    text = next(one.text for one in load_recipes("onnx") if one.id == recipe)
    return BuildPlan(
        recipe_id=recipe,
        recipe=text,
        skip=0,
        model=str(tmp_path / "m.onnx"),
        calibration=str(tmp_path / "x.npy"),
        count=8,
        tensors=(Input(name="x", dtype="float32", shape=(-1, *shape), sample=SampleMapping(dtype="float32")),),
        out=str(tmp_path / "out.onnx"),
        memory_limit_mb=1e6,
    )


def left_out(made: Built) -> dict[str, str]:
    return {str(one["pass"]): str(one["left_out"]) for one in made.changes if "left_out" in one}


def test_a_simplifier_that_fails_leaves_the_files_own_bytes(tmp_path: Path) -> None:
    data = trees()
    made = apply_recipe(plan(tmp_path, data, "float"))
    assert isinstance(made, Built)
    assert len((tmp_path / "out.onnx").read_bytes()) <= len(data)
    x = weights(4, 32)
    np.testing.assert_array_equal(
        session((tmp_path / "out.onnx").read_bytes()).run(None, {"x": x})[0], session(data).run(None, {"x": x})[0]
    )


def test_folding_that_multiplies_a_file_is_not_kept(tmp_path: Path) -> None:
    data = expanding()
    made = apply_recipe(plan(tmp_path, data, "float", (4, 128, 128)))
    assert isinstance(made, Built)
    assert (tmp_path / "out.onnx").stat().st_size <= len(data)


def test_weights_of_nothing_left_do_not_cost_what_dynamic_quantization_did(tmp_path: Path) -> None:
    made = apply_recipe(plan(tmp_path, dense(), "int8-weights-dynamic"))
    assert isinstance(made, Built)
    assert "no weights to store" in left_out(made)["weight_only"]
    assert all("idle" in one for one in made.changes if "left_out" in one), "nothing that a report needs to tell"
    assert (tmp_path / "out.onnx").stat().st_size < 0.6 * len(dense())


def test_a_recipe_of_which_no_pass_has_anything_to_do_is_refused_with_the_first_reason(tmp_path: Path) -> None:
    made = apply_recipe(plan(tmp_path, trees(), "int8-weights-dynamic"))
    assert isinstance(made, BuildRefused)
    assert made.step == "dynamic_int8"
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("step", [StaticInt8(), DynamicInt8(), Float16()])
def test_a_model_quantized_by_its_maker_is_foreseen_and_keeps_its_scales(step: Any) -> None:
    data = quantized()
    with pytest.raises(PassError, match="its own scales are kept"):
        step.foresee(data, context(data, (32,)))
    with pytest.raises(PassError, match="float16 already"):
        step.foresee(half(), context(half(), (32,)))
    step.foresee(dense(), context(dense(), (32,)))


def test_what_is_foreseen_says_so(tmp_path: Path) -> None:
    made = apply_recipe(plan(tmp_path, quantized(), "int8-dynamic"))
    assert isinstance(made, BuildRefused)
    assert made.foreseen


def test_simplifying_and_compacting_leave_learned_scales_and_answers() -> None:
    data = quantized()
    own = context(data, (32,))
    try:
        simple = Simplify().apply(data, own).model
    except PassError:
        simple = data
    found = Compact().apply(simple, own).model
    kept = [numpy_helper.to_array(one).tolist() for one in load(found).graph.initializer]
    for one in load(data).graph.initializer:
        assert numpy_helper.to_array(one).tolist() in kept
    x = weights(8, 32)
    np.testing.assert_array_equal(session(found).run(None, {"x": x})[0], session(data).run(None, {"x": x})[0])


def test_constants_listed_as_inputs_are_quantized_like_others() -> None:
    listed = [helper.make_tensor_value_info("w", TensorProto.FLOAT, [32, 32])]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    data = model(nodes, {"w": weights(32, 32)}, [None, 32], version=13, listed=listed, ir_version=3)
    assert [one.name for one in load(data).graph.input] == ["x"]
    made = DynamicInt8().apply(data, context(data, (32,))).model
    x = weights(4, 32)
    truth, found = (session(one).run(None, {"x": x})[0] for one in (data, made))
    assert np.abs(truth - found).max() < 0.05 * np.ptp(truth)


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_grouped_transposed_convolution_with_a_bias_is_quantized_around(per_channel: bool) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "c"], ["h"]),
        helper.make_node("ConvTranspose", ["h", "t", "b"], ["y"], group=4, strides=[2, 2]),
    ]
    constants = {"c": weights(8, 4, 3, 3), "t": weights(8, 2, 2, 2), "b": weights(8)}
    data = model(nodes, constants, [None, 4, 8, 8])
    own = context(data, (4, 8, 8))
    made = StaticInt8(per_channel=per_channel).apply(data, own).model
    feeds = next(own.calibration())
    truth, found = (session(one).run(None, feeds)[0] for one in (data, made))
    assert np.abs(truth - found).max() < 0.1 * np.ptp(truth)


def test_answers_that_are_infinite_on_both_sides_agree() -> None:
    data = model([helper.make_node("Log", ["x"], ["l"]), helper.make_node("Identity", ["l"], ["y"])], {}, [None, 4])

    def feeds() -> Iterator[dict[str, Any]]:
        yield {"x": np.array([[0.0, 1.0, -1.0, 2.0]], np.float32)}

    own = Context(calibration=feeds, unquantized=data)
    assert Simplify().apply(data, own).changed["largest_difference"] == 0.0


def test_a_model_of_other_domains_operators_only_is_of_no_old_set() -> None:
    assert opset(load(trees())) == onnx.defs.onnx_opset_version()
    with pytest.raises(NothingToDoError):
        WeightOnly().apply(trees(), context(trees(), (32,)))


def test_weights_that_local_functions_read_are_compressed_too(tmp_path: Path) -> None:
    """PyTorch's exporter writes modules as functions."""
    body = [helper.make_node("MatMul", ["a", "w"], ["m"]), helper.make_node("Relu", ["m"], ["o"])]
    layer = helper.make_function("modules", "Layer", ["a", "w"], ["o"], body, [helper.make_opsetid("", 17)])
    nodes = [
        helper.make_node("Layer", ["x", "w0"], ["h"], domain="modules"),
        helper.make_node("Layer", ["h", "w1"], ["y"], domain="modules"),
    ]
    plain = load(model(nodes, {"w0": weights(32, 48), "w1": weights(48, 32)}, [None, 32]))
    plain.functions.append(layer)
    plain.opset_import.append(helper.make_opsetid("modules", 1))
    data = plain.SerializeToString()
    made = apply_recipe(plan(tmp_path, data, "int8-weights"))
    assert isinstance(made, Built)
    small = (tmp_path / "out.onnx").read_bytes()
    assert len(small) < 0.4 * len(data)
    x = weights(4, 32)
    expected, found = (session(one).run(None, {"x": x})[0] for one in (data, small))
    assert np.square(found - expected).mean() < 1e-3 * expected.var()
