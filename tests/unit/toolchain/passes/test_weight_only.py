"""Stored weights: bytes, answers and arithmetic against numpy, on convolutions, tables and recurrent layers."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.makers import onnx_models
from support.makers.sequence_models import recurrent_classifier, sequences

from edge_compression.onnx_tools.graph import array, count_operators, initializers, load, save, session
from edge_compression.pass_api import Context, PassError
from edge_compression.passes import (
    BiasCorrection,
    Compact,
    DynamicInt8,
    MixedWeights,
    SecondOrderRounding,
    StaticInt8,
    UnpackAtLoad,
    WeightOnly,
)
from edge_compression.quantization.sensitivity import Saving, affordable, output_noise
from edge_compression.quantization.weights import along, find_weights, rounded
from edge_compression.recipes.recipe import load_recipes

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


def answers(model: bytes, x: Any = X, *, optimize: bool = True) -> Any:
    return session(model, optimize=optimize).run(None, {"x": x})[0]


def folded(model: bytes, tmp_path: Any) -> onnx.ModelProto:
    """Return the graph as onnxruntime runs it after loading."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return onnx.load(tmp_path / "loaded.onnx")


RECURRENT_X, RECURRENT_Y = sequences(400, seed=2)


@pytest.fixture(scope="module", params=["GRU", "LSTM"])
def recurrent(request: pytest.FixtureRequest) -> bytes:
    return save(recurrent_classifier(request.param))


@pytest.mark.parametrize("at_load", [False, True])
def test_a_recurrent_model_shrinks_to_a_third_within_half_a_point(recurrent: bytes, at_load: bool) -> None:
    context = Context(calibration=lambda: iter([{"x": one[None]} for one in RECURRENT_X[:8]]), unquantized=recurrent)
    small = WeightOnly().apply(recurrent, context).model
    if at_load:
        small = UnpackAtLoad().apply(small, context).model
    small = Compact().apply(small, context).model
    before = np.mean(answers(recurrent, RECURRENT_X).argmax(1) == RECURRENT_Y)
    after = np.mean(answers(small, RECURRENT_X).argmax(1) == RECURRENT_Y)
    assert before > 0.9
    assert after >= before - 0.005
    assert len(small) <= 0.35 * len(recurrent)


def test_recurrent_weights_stay_packed_in_memory_or_are_unpacked_once_as_the_recipe_says(
    recurrent: bytes, context: Context, tmp_path: Any
) -> None:
    packed = WeightOnly().apply(recurrent, context).model
    assert count_operators(folded(packed, tmp_path), ("DequantizeLinear",)) >= 4
    once = folded(UnpackAtLoad().apply(packed, context).model, tmp_path)
    assert count_operators(once, ("DequantizeLinear", "Cast", "Mul")) == 0


def test_an_lstm_in_eight_bit_arithmetic_keeps_its_answers_and_the_rest_is_stored(context: Context) -> None:
    model = save(recurrent_classifier("LSTM", directions=1))
    quantized = DynamicInt8(operators=("LSTM", "Gemm", "MatMul")).apply(model, context)
    assert quantized.changed["integer_operators"] == 3
    agreement = np.mean(answers(quantized.model, RECURRENT_X).argmax(1) == answers(model, RECURRENT_X).argmax(1))
    assert agreement > 0.97


@pytest.mark.parametrize(("bits", "worst"), [(8, 0.51 / 127), (4, 0.6)])
def test_rounding_is_within_half_a_step_unless_clipping_pays(bits: int, worst: float) -> None:
    values = np.random.default_rng(0).standard_normal((5, 300)).astype(np.float32)
    values[3] = 0.0
    largest = {8: 127, 4: 7}[bits]
    integers, scale = rounded(values, 0, largest=largest, per_channel=True)
    reach = np.abs(values).max(axis=1, keepdims=True)
    assert integers.dtype == np.int8
    assert np.abs(integers).max() <= largest
    assert np.all(np.abs(integers * along(scale, 0, 2) - values) <= worst * reach + 1e-7)
    plain = np.rint(values / np.where(reach > 0, reach / largest, 1)) * np.where(reach > 0, reach / largest, 1)
    ours = integers * along(scale, 0, 2)
    assert np.all(((ours - values) ** 2).sum(1) <= ((plain - values) ** 2).sum(1) * 1.0001 + 1e-9)


def test_unpacking_at_load_computes_the_same_numbers(original: bytes, context: Context, tmp_path: Any) -> None:
    packed = WeightOnly().apply(original, context).model
    once = UnpackAtLoad().apply(packed, context).model
    np.testing.assert_allclose(answers(once), answers(packed), atol=1e-4)
    np.testing.assert_allclose(answers(once, optimize=False), answers(packed, optimize=False), atol=1e-5)
    assert count_operators(folded(once, tmp_path), ("Cast", "Mul", "DequantizeLinear")) == 0


def test_four_bits_come_out_as_they_went_in(context: Context, tmp_path: Any) -> None:
    generator = np.random.default_rng(1)
    kernel = generator.standard_normal((6, 3, 9)).astype(np.float32)
    weights = generator.standard_normal((33, 8)).astype(np.float32)
    model = onnx_models.model(
        [
            helper.make_node("Conv", ["x", "kernel"], ["c"], kernel_shape=[9]),
            helper.make_node("ReduceMean", ["c"], ["m"], axes=[2], keepdims=0),
            helper.make_node("Concat", ["m"] * 5 + ["three"], ["wide"], axis=1),
            helper.make_node("MatMul", ["wide", "weights"], ["y"]),
        ],
        {"kernel": kernel, "weights": weights, "three": np.ones((1, 3), np.float32)},
        tuple(CALIBRATION.shape[1:]),
        (8,),
        output="y",
    )
    before = WeightOnly(bits=4, operators=("MatMul",)).apply(save(model), context).model
    after = UnpackAtLoad().apply(before, context)
    assert after.changed == {"weights": 1, "packed_in_four_bits": 1}
    one = CALIBRATION[:1]
    # With optimizations the engine multiplies packed weights in another arithmetic, so exactness is asked without.
    found = answers(after.model, one, optimize=False)
    np.testing.assert_allclose(found, answers(before, one, optimize=False), atol=1e-5)
    halves = initializers(load(after.model))["weights_quantized_halves"]
    assert array(halves).nbytes == weights.size // 2


def test_a_table_is_kept_in_integers_and_only_rows_taken_are_unpacked(context: Context) -> None:
    generator = np.random.default_rng(2)
    table = (generator.standard_normal((50, 16)) * np.arange(1, 17)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        "table",
        [helper.make_tensor_value_info("x", onnx.TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 16])],
        [numpy_helper.from_array(table, "table")],
    )
    model = save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    packed = load(WeightOnly().apply(model, context).model)
    order = [node.op_type for node in packed.graph.node]
    assert order == ["Gather", "DequantizeLinear"]
    found = answers(save(packed), np.arange(50))
    assert np.all(np.abs(found - table) <= np.abs(table).max(axis=0) / 127 * 0.51)


@pytest.mark.parametrize("transposed", [0, 1])
def test_every_layer_has_its_scales_along_its_outputs(transposed: int, context: Context) -> None:
    generator = np.random.default_rng(4)
    weights = (generator.standard_normal((20, 30)) * np.logspace(0, 3, 30)).astype(np.float32)
    held = np.ascontiguousarray(weights.T) if transposed else weights
    made = onnx_models.model(
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=transposed)], {"w": held}, (20,), (30,), output="y"
    )
    x = generator.standard_normal((4, 20)).astype(np.float32)
    found = answers(WeightOnly().apply(save(made), context).model, x)
    np.testing.assert_allclose(found / np.abs(x @ weights).max(0), x @ weights / np.abs(x @ weights).max(0), atol=0.03)


def test_a_constant_that_two_layers_read_along_different_axes_is_left(context: Context) -> None:
    generator = np.random.default_rng(4)
    weights = generator.standard_normal((20, 20)).astype(np.float32)
    made = onnx_models.model(
        [
            helper.make_node("Gemm", ["x", "w"], ["h"], transB=1),
            helper.make_node("Gemm", ["h", "w"], ["y"]),
        ],
        {"w": weights},
        (20,),
        (20,),
        output="y",
    )
    assert find_weights(made, ()) == []
    with pytest.raises(PassError, match="no weights"):
        WeightOnly().apply(save(made), context)


def test_rounding_by_second_order_and_corrected_biases_bring_four_bits_closer(
    original: bytes, context: Context
) -> None:
    truth = answers(original)
    nearest = WeightOnly(bits=4).apply(original, context).model
    second = SecondOrderRounding().apply(nearest, context).model
    both = BiasCorrection().apply(second, context).model
    errors = [float(np.mean((answers(model) - truth) ** 2)) for model in (nearest, second, both)]
    assert errors[1] < errors[0]
    assert errors[2] < 1.02 * errors[1]
    assert UnpackAtLoad().apply(both, context).changed["packed_in_four_bits"] == 1


def test_noise_is_the_change_of_the_answers_when_one_constant_is_another(original: bytes, context: Context) -> None:
    graph = load(original)
    weights = {one.name: one.values for one in find_weights(graph, ())}
    other = {name: np.round(values, 1) for name, values in weights.items()}
    signal, noises = output_noise(graph, list(other.items()), context)
    truth = answers(original, CALIBRATION)
    assert signal == pytest.approx(float((truth.astype(np.float64) ** 2).sum()), rel=1e-4)
    for (name, values), noise in zip(other.items(), noises, strict=True):
        changed = load(original)
        initializers(changed)[name].CopyFrom(numpy_helper.from_array(values, name))
        assert noise == pytest.approx(float(((answers(save(changed), CALIBRATION) - truth) ** 2).sum()), rel=1e-3)


def test_the_choice_is_near_the_best_of_all_choices_and_never_over_the_limit() -> None:
    generator = np.random.default_rng(6)
    savings = [
        Saving(name=str(index), size=int(generator.integers(1, 100)), noise=float(generator.uniform(0, 10)))
        for index in range(10)
    ]
    for limit in (0.0, 5.0, 20.0, 1000.0):
        chosen = [one for one in savings if one.name in affordable(savings, limit)]
        best = max(
            sum(one.size for one in some)
            for count in range(11)
            for some in itertools.combinations(savings, count)
            if sum(one.noise for one in some) <= limit
        )
        assert sum(one.noise for one in chosen) <= limit
        assert sum(one.size for one in chosen) >= 0.8 * best


def test_mixed_precision_spends_four_bits_where_they_are_quiet(recurrent: bytes) -> None:
    context = Context(calibration=lambda: iter([{"x": one[None]} for one in RECURRENT_X[:8]]), unquantized=recurrent)
    everything = MixedWeights(sqnr=0.1).apply(recurrent, context).changed
    assert everything["weights_in_eight_bits"] == 0
    nothing = MixedWeights(sqnr=60.0).apply(recurrent, context)
    assert nothing.changed["weights_in_four_bits"] == 0
    assert nothing.model == WeightOnly().apply(recurrent, context).model
    wanted = float(everything["expected_sqnr_db"]) + 3.0
    applied = MixedWeights(sqnr=wanted).apply(recurrent, context)
    assert float(applied.changed["expected_sqnr_db"]) >= wanted
    assert 0 < int(applied.changed["weights_in_four_bits"]) < int(everything["weights_in_four_bits"])
    smaller = UnpackAtLoad().apply(applied.model, context).model
    assert len(smaller) < len(WeightOnly().apply(recurrent, context).model)


def test_unpacking_is_refused_where_it_would_undo_something(original: bytes, context: Context) -> None:
    with pytest.raises(PassError, match="weight_only"):
        UnpackAtLoad().apply(original, context)
    with pytest.raises(PassError, match="activations"):
        UnpackAtLoad().apply(StaticInt8().apply(original, context).model, context)


@pytest.mark.parametrize("step", [WeightOnly(), StaticInt8(reduce_range=True)])
def test_an_operator_set_without_scales_along_an_axis_is_raised_first(step: Any, context: Context) -> None:
    old = onnx_models.conv_classifier()
    old.opset_import[0].version = 11
    found = load(step.apply(save(old), context).model)
    assert found.opset_import[0].version == 13
    assert np.mean(answers(save(found)).argmax(1) == answers(save(old)).argmax(1)) > 0.9


def test_an_operator_that_cannot_be_converted_is_named(context: Context) -> None:
    old = onnx_models.model([helper.make_node("Relu", ["x"], ["y"])], {}, (4,), (4,), output="y")
    old.opset_import[0].version = 9
    old.graph.node[0].op_type = "Upsample"
    with pytest.raises(PassError, match="Upsample"):
        WeightOnly().apply(save(old), context)


def spiky() -> bytes:
    """Three 1x1 convolutions whose channels have one large weight each, as folding a residual path gives them: one
    scale a channel leaves few steps for the other weights."""
    generator = np.random.default_rng(5)
    constants, nodes, last = [], [], "x"
    for index in range(3):
        weights = generator.normal(0.0, 0.02, (48, 48)).astype(np.float32)
        weights[np.arange(48), generator.permutation(48)] = 8.0 * (index == 1) + 1.0
        constants.append(numpy_helper.from_array(weights[:, :, None, None], f"w{index}"))
        constants.append(numpy_helper.from_array(np.zeros(48, np.float32), f"b{index}"))
        nodes.append(helper.make_node("Conv", [last, f"w{index}", f"b{index}"], [f"h{index}"]))
        nodes.append(helper.make_node("HardSwish", [f"h{index}"], [f"a{index}"]))
        last = f"a{index}"
    matrix = numpy_helper.from_array(generator.normal(size=(48, 10)).astype(np.float32), "m")
    nodes.append(helper.make_node("ReduceMean", [last], ["p"], axes=[2, 3], keepdims=0))
    nodes.append(helper.make_node("MatMul", ["p", "m"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "spiky",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 48, 4, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 10])],
        [*constants, matrix],
    )
    return save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_what_dynamic_quantization_leaves_in_float_is_rounded_with_its_inputs_in_mind() -> None:
    """Without that a text recognizer lost 3 points by the first recipe of all, with it none."""
    generator = np.random.default_rng(6)
    mixing = generator.normal(size=(48, 12)).astype(np.float32)  # channels go together, as those of pictures do
    x = np.einsum("cr,nrhw->nchw", mixing, generator.normal(size=(24, 12, 4, 4)).astype(np.float32))
    model = spiky()
    recipe = next(one for one in load_recipes("onnx") if one.id == "int8-weights-dynamic")

    def noise(*left_out: type) -> float:
        made = unquantized = model
        for step in recipe.passes:
            if isinstance(step, left_out):
                continue
            given = Context(calibration=lambda: ({"x": one[None]} for one in x[:12]), unquantized=unquantized)
            made = step.apply(made, given).model
            unquantized = unquantized if count_operators(load(made), ("MatMulInteger",)) else made
        expected = answers(model, x[12:])
        return float(np.square(answers(made, x[12:]) - expected).mean() / expected.var())

    assert noise() < 0.25 * noise(SecondOrderRounding, BiasCorrection)


@pytest.mark.parametrize(("step", "share"), [(WeightOnly(), 0.62), (MixedWeights(sqnr=12.0), 0.55)])
def test_float16_weights_are_stored_in_fewer_bits_and_unpacked_as_float16(step: Any, share: float) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = save(convert_float_to_float16(load(spiky()), keep_io_types=False))
    x = np.random.default_rng(7).normal(size=(16, 48, 4, 4)).astype(np.float16)
    given = Context(calibration=lambda: ({"x": one[None]} for one in x[:8]), unquantized=model)
    made = model
    for each in (step, SecondOrderRounding(), BiasCorrection(), UnpackAtLoad(), Compact()):
        made = each.apply(made, given).model
    assert len(made) < share * len(model)
    expected, found = answers(model, x), answers(made, x)
    assert found.dtype == np.float16
    error = np.square((found - expected).astype(np.float64)).mean() / np.var(expected.astype(np.float64))
    assert error < 0.05


def test_noise_counts_where_it_is_largest_of_all_outputs() -> None:
    """Two heads of one trunk: the weights of the second are silent at the first."""
    generator = np.random.default_rng(8)
    weights = {name: generator.normal(size=(24, 24)).astype(np.float32) for name in ("trunk", "one", "two")}
    nodes = [
        helper.make_node("MatMul", ["x", "trunk"], ["t"]),
        helper.make_node("MatMul", ["t", "one"], ["y"]),
        helper.make_node("MatMul", ["t", "two"], ["m"]),
        helper.make_node("Mul", ["m", "small"], ["z"]),
        helper.make_node("Cast", ["y"], ["k"], to=onnx.TensorProto.INT32),
    ]
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("y", "z")]
    outputs.append(helper.make_tensor_value_info("k", onnx.TensorProto.INT32, None))
    constants = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(
        nodes,
        "heads",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 24])],
        outputs,
        [*constants, numpy_helper.from_array(np.float32(1e-6), "small")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = generator.normal(size=(8, 24)).astype(np.float32)
    given = Context(calibration=lambda: ({"x": one[None]} for one in x), unquantized=save(model))
    signal, (silent, loud) = output_noise(model, [("one", weights["one"]), ("two", np.zeros((24, 24)))], given)
    assert silent == 0.0
    assert loud == pytest.approx(signal), "all of the second head is lost"
    mixed = MixedWeights(sqnr=20.0).apply(save(model), given)
    made = session(mixed.model).run(None, {"x": x})
    for right, found in zip(session(save(model)).run(None, {"x": x})[:2], made[:2], strict=True):
        assert np.square(found - right).sum() < 0.02 * np.square(right).sum()
