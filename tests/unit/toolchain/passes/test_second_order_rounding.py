"""Second-order rounding against least squares, exhaustive search and the layers' own arithmetic."""

import itertools
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from support.makers import onnx_models

from edge_compression.onnx_tools.graph import array, initializers, load, save, session
from edge_compression.pass_api import Context, PassError
from edge_compression.passes import BiasCorrection, DynamicInt8, SecondOrderRounding, StaticInt8, second_order_rounding
from edge_compression.quantization import input_moments, layer_rounding
from edge_compression.quantization.layer_rounding import seen_inputs
from edge_compression.quantization.quantized_layers import quantized_layers
from edge_compression.quantization.rounding import compensated, output_error

Array = np.ndarray[Any, Any]
SCALE = 0.25


def correlated(columns: int, seed: int, count: int = 200) -> Array:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, columns)) @ generator.standard_normal((columns, columns))


@pytest.mark.parametrize("seed", range(5))
def test_each_column_takes_its_error_into_the_least_squares_of_those_to_come(seed: int) -> None:
    x = correlated(6, seed)
    moment = x.T @ x
    weights = np.random.default_rng(seed).standard_normal(6)
    damped = moment + 0.01 * np.diag(moment).mean() * np.eye(6)
    order = np.argsort(-np.diag(moment))
    expected, left = np.zeros(6), weights.copy()
    for place, column in enumerate(order):
        expected[column] = np.rint(left[column] / SCALE)
        later, gap = order[place + 1 :], left[column] - SCALE * expected[column]
        # The later weights that keep the output where it was, given what this one became.
        left[later] += np.linalg.solve(damped[np.ix_(later, later)], damped[later, column]) * gap
    found = compensated(weights[None, None], moment[None], scale=np.full((1, 1), SCALE), limit=64)
    np.testing.assert_array_equal(found[0, 0], expected)


def test_the_error_is_near_the_best_of_all_roundings_and_far_below_the_nearest() -> None:
    total = np.zeros(3)
    for seed in range(20):
        x = correlated(6, seed)
        moment = (x.T @ x)[None]
        weights = np.random.default_rng(seed).standard_normal(6)
        below = np.floor(weights / SCALE)
        every = [below + np.array(up) for up in itertools.product((0, 1), repeat=6)]
        found = compensated(weights[None, None], moment, scale=np.full((1, 1), SCALE), limit=64)[0, 0]
        nearest, chosen, *all_errors = (
            output_error((integers * SCALE - weights)[None, None], moment)
            for integers in (np.rint(weights / SCALE), found, *every)
        )
        total += [nearest, chosen, min(all_errors)]
    assert total[1] < 0.5 * total[0]
    assert total[1] < 2.0 * total[2]


def test_blocks_of_columns_give_what_single_columns_give(monkeypatch: pytest.MonkeyPatch) -> None:
    x = correlated(40, seed=3)
    weights = np.random.default_rng(4).standard_normal((1, 5, 40))
    whole = compensated(weights, (x.T @ x)[None], scale=np.full((1, 5), SCALE), limit=64)
    monkeypatch.setattr("edge_compression.quantization.rounding.BLOCK", 7)
    np.testing.assert_array_equal(compensated(weights, (x.T @ x)[None], scale=np.full((1, 5), SCALE), limit=64), whole)


def test_integers_stay_within_their_bits_and_an_input_that_is_always_zero_is_rounded_alone() -> None:
    x = correlated(4, seed=5)
    x[:, 2] = 0.0
    weights = np.array([[[3.0, -9.0, 0.6, 0.1]]])
    found = compensated(weights, (x.T @ x)[None], scale=np.full((1, 1), SCALE), limit=8)
    assert np.abs(found).max() <= 8
    assert found[0, 0, 2] == 2


CONVOLUTIONS = [
    {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 1, 2, 1]},
    {"kernel_shape": [3, 2], "dilations": [2, 1]},
    {"kernel_shape": [3, 3], "group": 2},
    {"kernel_shape": [3, 3], "strides": [2, 1], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER", "group": 4},
]


@pytest.mark.parametrize("attributes", CONVOLUTIONS)
def test_rows_times_inputs_is_what_onnxruntime_convolves(attributes: dict[str, Any]) -> None:
    generator = np.random.default_rng(0)
    group = attributes.get("group", 1)
    weights = generator.standard_normal((8, 4 // group, *attributes["kernel_shape"])).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    x = generator.standard_normal((1, 4, 9, 8)).astype(np.float32)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", 1, x.shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    expected = session(save(model)).run(None, {"x": x})[0]
    rows, taken = input_moments.as_rows(node, weights), input_moments.inputs(node, weights, x)
    found = np.einsum("grc,gpc->grp", rows, taken).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(input_moments.from_rows(node, rows, weights.shape), weights)


@pytest.mark.parametrize("transposed", [0, 1])
def test_rows_times_inputs_is_what_a_fully_connected_layer_computes(transposed: int) -> None:
    generator = np.random.default_rng(1)
    weights, x = generator.standard_normal((5, 3)), generator.standard_normal((2, 5)).astype(np.float32)
    own = np.ascontiguousarray(weights.T) if transposed else weights
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=transposed)
    rows = input_moments.as_rows(node, own)
    found = np.einsum("grc,gpc->pr", rows, input_moments.inputs(node, own, x))
    np.testing.assert_allclose(found, x @ weights, atol=1e-6)
    np.testing.assert_array_equal(input_moments.from_rows(node, rows, own.shape), own)


CALIBRATION, _ = onnx_models.samples(48, seed=10)
X, _ = onnx_models.samples(200, seed=9)


def feeds() -> Iterator[dict[str, Any]]:
    for sample in CALIBRATION:
        yield {"x": sample[None]}


@pytest.fixture(scope="module")
def context() -> Context:
    return Context(calibration=feeds, unquantized=save(onnx_models.conv_classifier()))


@pytest.fixture(scope="module")
def quantized(context: Context) -> bytes:
    return StaticInt8(reduce_range=True).apply(context.unquantized, context).model


def far(model: bytes, context: Context) -> float:
    """Root mean square of what is wrong with the answers, in the arithmetic of the file."""
    truth = session(context.unquantized).run(None, {"x": X})[0]
    return math.sqrt(float(np.mean((session(model, optimize=False).run(None, {"x": X})[0] - truth) ** 2)))


def test_the_answers_come_closer_and_closer_still_with_corrected_biases(quantized: bytes, context: Context) -> None:
    applied = SecondOrderRounding().apply(quantized, context)
    corrected = BiasCorrection().apply(applied.model, context).model
    assert applied.changed["layers"] == 2
    assert float(applied.changed["squared_error_kept"]) < 0.7
    assert far(applied.model, context) < far(quantized, context)
    assert far(corrected, context) < 1.05 * far(applied.model, context)


def test_only_integers_change_and_stay_in_seven_bits(quantized: bytes, context: Context) -> None:
    before, after = load(quantized), load(SecondOrderRounding().apply(quantized, context).model)
    old, new = initializers(before), initializers(after)
    changed = {name for name in old if not np.array_equal(array(old[name]), array(new[name]))}
    assert changed <= {"kernel_quantized", "weights_quantized"}
    assert "kernel_quantized" in changed
    assert all(np.abs(array(new[name])).max() <= 64 for name in changed)


def test_moments_in_several_rounds_are_moments_in_one(
    quantized: bytes, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = SecondOrderRounding().apply(quantized, context).model
    monkeypatch.setattr(layer_rounding, "MOMENTS_BYTES", 1)
    assert SecondOrderRounding().apply(quantized, context).model == whole


def test_the_streamed_moments_are_those_of_all_inputs_at_once(quantized: bytes, context: Context) -> None:
    layers = quantized_layers(load(context.unquantized), load(quantized))
    inner = partial(second_order_rounding.activations, context)
    found = {seen.layer.weight: seen.moments for seen in seen_inputs(layers, inner)}
    windows = np.lib.stride_tricks.sliding_window_view(CALIBRATION, 9, axis=2)  # [N, C, P, K]
    rows = windows.transpose(0, 2, 1, 3).reshape(-1, 27).astype(np.float64)
    np.testing.assert_allclose(found["kernel"][0], rows.T @ rows, rtol=1e-4, atol=1e-2)


def test_a_model_that_is_not_statically_quantized_is_refused(context: Context) -> None:
    with pytest.raises(PassError, match="static_int8"):
        SecondOrderRounding().apply(context.unquantized, context)
    with pytest.raises(PassError, match="static_int8"):
        SecondOrderRounding().apply(DynamicInt8().apply(context.unquantized, context).model, context)
