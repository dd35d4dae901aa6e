"""Weights inside branches: what an input that never changes decides is decided once, the rest is stored in few bits."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_compression.onnx_tools.graph import load, save, session
from edge_compression.onnx_tools.inner_graphs import hoist_constants
from edge_compression.pass_api import Context
from edge_compression.passes import Compact, MixedWeights, Simplify, UnpackAtLoad, WeightOnly
from edge_compression.recipes.recipe import load_recipes
from edge_compression.search.build_process import BuildPlan, Built, apply_recipe
from edge_contracts.manifest import Input, SampleMapping

GENERATOR = np.random.default_rng(0)
RATES = {16000: GENERATOR.standard_normal((64, 64)), 8000: GENERATOR.standard_normal((64, 32)) @ np.ones((32, 64))}


def branch(name: str, weights: Any, *, held: bool) -> onnx.GraphProto:
    """One rate's network; its weights are in a Constant node if `held`, else among the branch's own constants. Both
    branches have the same names, as exporters write them."""
    tensor = numpy_helper.from_array(weights.astype(np.float32), "w")
    nodes = [helper.make_node("Constant", [], ["w"], value=tensor)] if held else []
    nodes += [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Tanh", ["m"], [f"{name}_y"])]
    output = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
    return helper.make_graph(nodes, name, [], [output], [] if held else [tensor])


def two_rates(*, held: bool = True) -> bytes:
    """A network for each of two sample rates, chosen by an input, as silero's detectors of speech are."""
    nodes = [
        helper.make_node("Equal", ["sr", "wide"], ["is_wide"]),
        helper.make_node(
            "If", ["is_wide"], ["chosen"],
            then_branch=branch("then", RATES[16000], held=held), else_branch=branch("else", RATES[8000], held=held),
        ),
        helper.make_node("Identity", ["chosen"], ["y"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 64]),
            helper.make_tensor_value_info("sr", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 64])],
        [numpy_helper.from_array(np.array(16000), "wide")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return save(model)


X = GENERATOR.standard_normal((12, 64)).astype(np.float32) * 0.1


def feeds(rate: int) -> Iterator[dict[str, Any]]:
    for one in X:
        yield {"x": one[None], "sr": np.array(rate)}


def context(model: bytes, rate: int, *, constant: bool) -> Context:
    constants = {"sr": np.array(rate)} if constant else {}
    return Context(calibration=lambda: feeds(rate), unquantized=model, constants=constants)


def answers(model: bytes, rate: int) -> Any:
    opened = session(model)
    return np.concatenate([opened.run(None, one)[0] for one in feeds(rate)])


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("rate", [16000, 8000])
def test_the_branch_of_a_constant_input_is_all_that_is_left(rate: int, held: bool) -> None:
    model = two_rates(held=held)
    slim = Simplify().apply(model, context(model, rate, constant=True))
    np.testing.assert_array_equal(answers(slim.model, rate), answers(model, rate))
    assert len(slim.model) < 0.6 * len(model)
    assert not any(node.op_type == "If" for node in load(slim.model).graph.node)
    assert [one.name for one in session(slim.model).get_inputs()] == ["x", "sr"]
    stored = WeightOnly().apply(slim.model, context(model, rate, constant=True))
    assert len(stored.model) < 0.2 * len(model)


def test_an_input_that_is_not_declared_constant_keeps_both_branches() -> None:
    model = two_rates()
    slim = Simplify().apply(model, context(model, 16000, constant=False)).model
    for rate in RATES:
        np.testing.assert_allclose(answers(slim, rate), answers(model, rate), atol=1e-6)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("step", [WeightOnly(), MixedWeights(sqnr=60.0)])
def test_weights_of_both_branches_are_stored_in_eight_bits(held: bool, step: Any) -> None:
    model = two_rates(held=held)
    given = context(model, 16000, constant=False)
    stored = step.apply(model, given).model
    small = Compact().apply(UnpackAtLoad().apply(stored, given).model, given).model
    assert len(small) < 0.35 * len(model)
    for rate in RATES:
        expected = answers(model, rate)
        assert np.square(answers(small, rate) - expected).mean() < 1e-3 * expected.var()


def test_what_a_branch_hands_on_stays_in_it() -> None:
    table = numpy_helper.from_array(np.ones((16, 16), np.float32), "t")
    output = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
    inner = helper.make_graph([helper.make_node("Constant", [], ["t"], value=table)], "b", [], [output])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["o"])], "o", [], [
        helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    ])  # fmt: skip
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=other)
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, 16]),
         helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [16, 16])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert hoist_constants(model, 1) == 0
    assert session(save(model)).run(None, {"x": X[0, :16] + np.zeros((16, 16), np.float32), "c": np.array(True)})


def test_a_recipe_binds_the_inputs_that_the_task_declares_constant(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(two_rates())
    (tmp_path / "samples").mkdir()
    np.save(tmp_path / "samples" / "0.npy", X)
    text = next(one.text for one in load_recipes("onnx") if one.id == "int8-weights")
    plan = BuildPlan(
        recipe_id="int8-weights",
        recipe=text,
        skip=0,
        model=str(tmp_path / "m.onnx"),
        calibration=str(tmp_path / "samples"),
        count=8,
        tensors=(
            Input(name="x", dtype="float32", shape=(-1, 64), sample=SampleMapping(dtype="float32")),
            Input(name="sr", dtype="int64", shape=(), sample=SampleMapping(dtype="int64"), constant=8000),
        ),
        out=str(tmp_path / "out.onnx"),
        memory_limit_mb=1e6,
    )
    made = apply_recipe(plan)
    assert isinstance(made, Built)
    assert made.changes[0]["inputs_bound"] == 1
    small = (tmp_path / "out.onnx").read_bytes()
    assert len(small) < 0.2 * (tmp_path / "m.onnx").stat().st_size
    expected = answers(two_rates(), 8000)
    assert np.square(answers(small, 8000) - expected).mean() < 1e-3 * expected.var()


def test_a_binding_that_the_simplifier_cannot_use_changes_no_answer() -> None:
    """The constant goes into arithmetic: nothing is chosen by it."""
    nodes = [helper.make_node("Cast", ["g"], ["f"], to=TensorProto.FLOAT), helper.make_node("Mul", ["x", "f"], ["y"])]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 64]),
         helper.make_tensor_value_info("g", TensorProto.INT64, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 64])],
    )  # fmt: skip
    model = save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    fed = [{"x": X[:1], "g": np.array(3)}]
    given = replace(context(model, 0, constant=False), calibration=lambda: iter(fed), constants={"g": np.array(3)})
    slim = Simplify().apply(model, given).model
    np.testing.assert_array_equal(session(slim).run(None, fed[0])[0], 3 * X[:1])
