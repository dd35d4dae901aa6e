"""Every pass on a small fitted network, against onnxruntime or a numerical oracle."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from support.makers import onnx_models

from edge_compression.onnx_tools.graph import array, count_operators, initializers, load, save, session
from edge_compression.pass_api import Context, PassError
from edge_compression.passes import BiasCorrection, Compact, DynamicInt8, Float16, Simplify, StaticInt8
from edge_compression.quantization.quantized_layers import quantized_layers

X, Y = onnx_models.samples(200, seed=9)
CALIBRATION, _ = onnx_models.samples(32, seed=10)


def feeds() -> Iterator[dict[str, Any]]:
    for sample in CALIBRATION:
        yield {"x": sample[None]}


@pytest.fixture(scope="module")
def original() -> bytes:
    return save(onnx_models.conv_classifier())


@pytest.fixture(scope="module")
def context(original: bytes) -> Context:
    return Context(calibration=feeds, unquantized=original)


def answers(model: bytes, *, optimize: bool = True) -> np.ndarray[Any, Any]:
    return np.asarray(session(model, optimize=optimize).run(None, {"x": X})[0])


def agreement(model: bytes, original: bytes, *, optimize: bool = True) -> float:
    return float(np.mean(answers(model, optimize=optimize).argmax(1) == answers(original).argmax(1)))


def test_the_original_is_a_real_classifier(original: bytes) -> None:
    assert np.mean(answers(original).argmax(1) == Y) > 0.9


def test_simplify_folds_what_is_constant_and_changes_no_answer(original: bytes, context: Context) -> None:
    model = load(original)
    model.graph.node.insert(0, helper.make_node("Identity", ["x"], ["same"], name="identity"))
    model.graph.node[1].input[0] = "same"
    applied = Simplify().apply(save(model), context)
    assert applied.changed["nodes_after"] < applied.changed["nodes_before"]
    np.testing.assert_allclose(answers(applied.model), answers(original), atol=1e-4)


def test_a_simplification_beyond_the_tolerance_is_not_kept(original: bytes, context: Context) -> None:
    with pytest.raises(PassError, match="differs"):
        Simplify(tolerance=-1.0).apply(original, context)


def test_float16_halves_the_weights_and_keeps_inputs_and_outputs(original: bytes, context: Context) -> None:
    applied = Float16().apply(original, context)
    model = load(applied.model)
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert len(applied.model) < 0.75 * len(original)
    assert agreement(applied.model, original) > 0.97


def test_dynamic_int8_keeps_the_answers(original: bytes, context: Context) -> None:
    applied = DynamicInt8().apply(original, context)
    assert applied.changed["integer_operators"] == 2
    assert agreement(applied.model, original) > 0.9


def test_an_operator_filter_limits_what_is_quantized(original: bytes, context: Context) -> None:
    assert DynamicInt8(operators=("MatMul", "Gemm")).apply(original, context).changed["integer_operators"] == 1
    only = load(StaticInt8(operators=("Conv",), reduce_range=True).apply(original, context).model)
    quantized = [name for name in initializers(only) if name.endswith("_quantized")]
    assert sorted(quantized) == ["bias_quantized", "kernel_quantized"]


def test_nothing_to_quantize_is_said(original: bytes, context: Context) -> None:
    with pytest.raises(PassError, match="LSTM"):
        StaticInt8(operators=("LSTM",)).apply(original, context)
    with pytest.raises(PassError, match="no operator"):
        DynamicInt8(operators=("Attention",)).apply(original, context)


@pytest.mark.parametrize("calibrator", ["minmax", "average", "percentile", "entropy", "mse"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_static_int8_with_seven_bit_weights_keeps_the_answers(
    original: bytes, context: Context, calibrator: Any, per_channel: bool
) -> None:
    step = StaticInt8(calibrator=calibrator, per_channel=per_channel, reduce_range=True)
    applied = step.apply(original, context)
    assert agreement(applied.model, original) > 0.9
    kernel = array(initializers(load(applied.model))["kernel_quantized"])
    assert kernel.dtype == np.int8
    assert np.abs(kernel).max() <= 64


def test_eight_bit_weights_are_right_in_exact_arithmetic_whatever_this_cpu_makes_of_them(
    original: bytes, context: Context
) -> None:
    applied = StaticInt8().apply(original, context)
    assert agreement(applied.model, original, optimize=False) > 0.95


def test_activations_may_be_signed(original: bytes, context: Context) -> None:
    model = load(StaticInt8(activations="s8", reduce_range=True).apply(original, context).model)
    zeros = [tensor for name, tensor in initializers(model).items() if name == "x_zero_point"]
    assert array(zeros[0]).dtype == np.int8
    assert array(zeros[0]) == 0


def test_bias_correction_takes_out_the_mean_error_numpy_finds(original: bytes, context: Context) -> None:
    quantized = StaticInt8(reduce_range=True).apply(original, context).model
    corrected = BiasCorrection().apply(quantized, context).model
    before, after, floats = (initializers(load(data)) for data in (quantized, corrected, original))
    kernel = quantized_layers(load(original), load(quantized))[0]
    error = kernel.dequantized - array(floats["kernel"])
    expected = onnx_models.conv1d(CALIBRATION, error, np.zeros(error.shape[0])).mean(axis=(0, 2))
    scale = array(before["bias_quantized_scale"]).astype(np.float64)
    steps = array(before["bias_quantized"]).astype(np.int64) - array(after["bias_quantized"])
    np.testing.assert_allclose(steps * scale, expected, atol=float(scale.max()))
    assert np.abs(steps).max() > 0


def test_bias_correction_brings_the_mean_answer_closer(original: bytes, context: Context) -> None:
    quantized = StaticInt8(reduce_range=True, per_channel=False).apply(original, context).model
    corrected = BiasCorrection().apply(quantized, context).model
    truth = answers(original).mean(axis=0)

    def gap(model: bytes) -> float:
        return float(np.abs(answers(model, optimize=False).mean(axis=0) - truth).sum())

    assert gap(corrected) < gap(quantized)


def test_bias_correction_without_a_quantized_layer_is_refused(original: bytes, context: Context) -> None:
    with pytest.raises(PassError, match="static_int8"):
        BiasCorrection().apply(original, context)


def test_compact_saves_bytes_and_changes_no_bit_of_the_answers(original: bytes, context: Context) -> None:
    quantized = StaticInt8(reduce_range=True).apply(original, context).model
    applied = Compact().apply(quantized, context)
    assert len(applied.model) < len(quantized)
    assert applied.changed["bytes_saved"] == len(quantized) - len(applied.model)
    np.testing.assert_array_equal(answers(applied.model), answers(quantized))
    model = load(applied.model)
    assert model.graph.input[0].name == "x"
    assert model.graph.output[0].name == "logits"


def test_compact_never_takes_the_name_of_an_input_or_output_and_shares_equal_constants(context: Context) -> None:
    one = np.ones(2, dtype=np.float32)
    nodes = [helper.make_node("Add", ["x", "first"], ["sum"]), helper.make_node("Add", ["sum", "second"], ["a"])]
    model = save(onnx_models.model(nodes, {"first": one, "second": one}, [2], [2], output="a"))
    applied = load(Compact().apply(model, context).model)
    assert len(applied.graph.initializer) == 1
    found = session(save(applied)).run(None, {"x": np.zeros((1, 2), np.float32)})[0]
    np.testing.assert_array_equal(found, [[2.0, 2.0]])


def test_compact_leaves_the_names_of_graphs_with_graphs_inside(context: Context) -> None:
    def branch(name: str) -> onnx.GraphProto:
        node = helper.make_node("Identity", ["x"], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, 1, None)])

    node = helper.make_node("If", ["flag"], ["y"], then_branch=branch("yes"), else_branch=branch("no"))
    model = onnx_models.model([node], {"flag": np.array(True)}, [2], [2], output="y")
    applied = load(Compact().apply(save(model), context).model)
    assert applied.graph.initializer[0].name == "flag"
    found = session(save(applied)).run(None, {"x": np.ones((1, 2), np.float32)})[0]
    np.testing.assert_array_equal(found, [[1.0, 1.0]])


def test_quantized_operators_answer_as_their_pairs_do(original: bytes, context: Context) -> None:
    applied = StaticInt8(form="qoperator", reduce_range=True).apply(original, context)
    kinds = {node.op_type for node in load(applied.model).graph.node}
    assert "QLinearConv" in kinds
    assert agreement(applied.model, original) > 0.9
    pairs = StaticInt8(reduce_range=True).apply(original, context).model
    assert agreement(applied.model, pairs) > 0.97


def test_sixteen_bit_activations_leave_only_the_error_of_the_weights(original: bytes, context: Context) -> None:
    wide = StaticInt8(activations="s16").apply(original, context).model
    rounded = load(original)
    for layer in quantized_layers(load(original), load(wide)):
        values = layer.dequantized.astype(np.float32)
        initializers(rounded)[layer.weight].CopyFrom(onnx.numpy_helper.from_array(values, layer.weight))
    # On the calibration samples: others, and few of these, are clipped where they are larger, at any number of bits.
    found = session(wide, optimize=False).run(None, {"x": CALIBRATION})[0]
    expected = session(save(rounded)).run(None, {"x": CALIBRATION})[0]
    assert np.quantile(np.abs(found - expected), 0.9) < 1e-3 * np.ptp(expected)


def test_batch_norms_are_folded_and_unused_weights_go(original: bytes, context: Context) -> None:
    model = load(original)
    generator = np.random.default_rng(2)
    width = array(initializers(model)["kernel"]).shape[0]
    for name in ("n_scale", "n_shift", "n_mean", "n_variance", "unused"):
        values = generator.uniform(0.5, 1.5, width).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    after, conv.output[0] = str(conv.output[0]), "raw"
    norm = helper.make_node("BatchNormalization", ["raw", "n_scale", "n_shift", "n_mean", "n_variance"], [after])
    model.graph.node.insert(1, norm)
    applied = Simplify().apply(save(model), context)
    assert count_operators(load(applied.model), ("BatchNormalization",)) == 0
    assert len(initializers(load(applied.model))) == len(initializers(load(original)))
    np.testing.assert_allclose(answers(applied.model), answers(save(model)), atol=1e-3)
