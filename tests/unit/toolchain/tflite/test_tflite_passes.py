"""What is done to TFLite models beside the quantizer: fewer bytes for the same answers, better answers for the same
bytes. The oracle is LiteRT."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from support.makers import tflite_models
from support.makers.tflite_files import external_tflite, linear_tflite
from support.makers.tflite_models import Array, Sketch, answers, convolutional, dense_classifier, images, packed, parsed

from edge_compression.pass_api import Context, PassError
from edge_compression.passes import TfliteCompact, TfliteInt8, TfliteRounding
from edge_compression.quantization.input_moments import as_rows
from edge_compression.tflite_tools.graph import ALIGNMENT, activations, load, save
from edge_compression.tflite_tools.layers import tflite_layers

# The quantizer opens an interpreter of its own that warns of the memory it takes.
pytestmark = pytest.mark.filterwarnings("ignore:Warning. Enabling .experimental_preserve_all_tensors:UserWarning")

MODES = ("weight_only", "dynamic", "static")
X = images(100, seed=2)


def feeds() -> Iterator[dict[str, Any]]:
    for one in images(64, seed=1):
        yield {"x": one[None]}


@pytest.fixture(scope="module")
def context() -> Context:
    return Context(calibration=feeds, unquantized=convolutional())


def quantized(mode: Any, context: Context) -> bytes:
    return TfliteInt8(mode=mode).apply(context.unquantized, context).model


def compacted(model: bytes, context: Context) -> bytes:
    return TfliteCompact().apply(model, context).model


@pytest.mark.parametrize("optimized", [False, True])
@pytest.mark.parametrize("mode", [None, *MODES])
def test_compaction_changes_no_bit_of_the_answers(mode: Any, optimized: bool, context: Context) -> None:
    model = quantized(mode, context) if mode else context.unquantized
    small = compacted(model, context)
    assert len(small) < 0.97 * len(model)
    np.testing.assert_array_equal(answers(small, X, optimized=optimized), answers(model, X, optimized=optimized))


def noted() -> Any:
    """A model with all that is taken away: notes, extremes, a constant that nothing reads."""
    model = parsed(convolutional())
    unused = schema.BufferT()
    unused.data = np.full(999, 7, np.uint8)
    model.description = "made by a test"
    model.buffers.append(unused)
    model.metadata = []
    for name in ("vendor's labels", "reduced_precision_support"):
        note, buffer = schema.MetadataT(), schema.BufferT()
        buffer.data = np.frombuffer(b"fp16" + bytes(300 * (name[0] == "v")), np.uint8)
        note.name, note.buffer = name, len(model.buffers)
        model.metadata.append(note)
        model.buffers.append(buffer)
    for tensor in model.subgraphs[0].tensors:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.min, tensor.quantization.max = [-1.0], [1.0]
    return model


def test_what_is_taken_away_costs_nothing_and_what_users_see_stays(context: Context) -> None:
    small = compacted(packed(noted()), context)
    found = parsed(small)
    tensors = found.subgraphs[0].tensors
    assert [one.name for one in tensors if one.name] == [b"x", b"logits"]
    assert found.description is None
    assert [(one.name, found.buffers[one.buffer].data.tobytes()) for one in found.metadata] == [
        (b"reduced_precision_support", b"fp16")
    ]
    assert all(tensor.quantization is None for tensor in tensors)
    assert len(small) < len(compacted(context.unquantized, context)) + 100
    assert Interpreter(model_content=small).get_input_details()[0]["name"] == "x"


def test_equal_constants_are_one_and_tensors_without_values_share_the_empty_one(context: Context) -> None:
    model = parsed(compacted(context.unquantized, context))
    buffers = {tensor.name or index: tensor.buffer for index, tensor in enumerate(model.subgraphs[0].tensors)}
    assert buffers[9] == buffers[11] != buffers[10]
    assert {buffers[b"x"], buffers[1], buffers[b"logits"]} == {0}
    assert model.buffers[0].data is None
    assert len(model.buffers) == 1 + 7


def test_a_constant_without_elements_stays_one(context: Context) -> None:
    model = parsed(context.unquantized)
    model.buffers[1].data = np.zeros(0, np.uint8)
    found = parsed(compacted(packed(model), context))
    assert found.buffers[found.subgraphs[0].tensors[0].buffer].data.size == 0


def test_constants_lie_where_engines_read_them(context: Context) -> None:
    small = compacted(quantized("static", context), context)
    assert small[4:8] == b"TFL3"
    for buffer in parsed(small).buffers[1:]:
        place = (
            buffer.data.__array_interface__["data"][0] - np.frombuffer(small, np.uint8).__array_interface__["data"][0]
        )
        assert place % ALIGNMENT == 0


def test_compacting_again_and_quantizing_what_was_compacted_give_the_same_bytes(context: Context) -> None:
    small = compacted(context.unquantized, context)
    assert compacted(small, context) == small
    for mode in MODES:
        again = TfliteInt8(mode=mode).apply(small, context).model
        assert compacted(again, context) == compacted(quantized(mode, context), context)


def test_a_model_with_constants_elsewhere_is_refused(context: Context) -> None:
    behind = parsed(context.unquantized)
    behind.buffers[1].offset, behind.buffers[1].size = 1 << 20, 64
    for model in (packed(behind), external_tflite(np.ones((4, 3), np.float32)), b"no model"):
        with pytest.raises(PassError):
            compacted(model, context)


def test_rows_times_inputs_is_what_litert_computes_for_every_kind_of_layer(context: Context) -> None:
    model = load(context.unquantized)
    layers = list(tflite_layers(model, load(quantized("weight_only", context))))
    assert len(layers) == 4
    produced = {str(int(one.inputs[1])): int(one.outputs[0]) for one in model.subgraphs[0].operators}
    wanted = [*produced.values(), *(int(layer.node.input[0]) for layer in layers)]
    values = next(activations(context.unquantized, context, wanted))
    for layer in layers:
        rows, taken = as_rows(layer.node, layer.values), layer.inputs(values[int(layer.node.input[0])])
        bias = model.buffers[model.subgraphs[0].tensors[int(str(layer.bias))].buffer].data.view(np.float32)
        found = np.einsum("grc,gpc->pgr", rows, taken).reshape(taken.shape[1], -1) + bias
        expected = values[produced[layer.weight]]
        np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(layer.stored(layer.integers).transpose(layer.axes), layer.integers)


def far(model: bytes, truth: Array) -> float:
    return float(np.sqrt(np.mean((answers(model, X) - truth) ** 2)))


@pytest.mark.parametrize(("mode", "share"), [("weight_only", 0.6), ("dynamic", 0.9), ("static", 0.95)])
def test_answers_come_closer_at_the_same_bytes(mode: Any, share: float, context: Context) -> None:
    before = quantized(mode, context)
    applied = TfliteRounding().apply(before, context)
    truth = answers(context.unquantized, X)
    assert applied.changed["layers"] == 4
    assert float(applied.changed["squared_error_kept"]) < 0.6
    assert far(applied.model, truth) < share * far(before, truth)
    # Two biases are equal, and so one in the file, before they are corrected.
    assert len(compacted(applied.model, context)) <= len(compacted(before, context)) + 8 * 4 + ALIGNMENT


def test_on_the_calibration_samples_no_channel_of_the_first_layer_is_off_on_average(context: Context) -> None:
    before = quantized("weight_only", context)
    after = TfliteRounding().apply(before, context).model

    def mean(model: bytes) -> Array:
        seen = [values[1] for values in activations(model, context, [1])]
        return np.mean(seen, axis=(0, 1, 2, 3))

    truth = mean(context.unquantized)
    assert np.abs(mean(after) - truth).max() < 0.02 * np.abs(mean(before) - truth).max()


def test_only_weights_and_biases_change(context: Context) -> None:
    before = quantized("static", context)
    old, new = parsed(before), parsed(TfliteRounding().apply(before, context).model)
    changed = {
        tensor.name.decode()
        for tensor, other in zip(old.subgraphs[0].tensors, new.subgraphs[0].tensors, strict=True)
        if not np.array_equal(old.buffers[tensor.buffer].data, new.buffers[other.buffer].data)
    }
    assert {"first", "middle", "last", "whole"} <= changed
    assert changed <= {"first", "middle", "last", "whole", "bias0", "bias1", "bias2", "bias3"}


def test_weights_that_two_layers_share_are_left() -> None:
    sketch, generator = Sketch(), np.random.default_rng(0)
    x, y, z = (sketch.tensor(name, (1, 32)) for name in "xyz")
    shared = sketch.constant("shared", generator.standard_normal((32, 32)) / 6)
    sketch.operator("FULLY_CONNECTED", [x, shared], y, tflite_models.dense())
    sketch.operator("FULLY_CONNECTED", [y, shared], z, tflite_models.dense())
    model = sketch.done(x, z)
    own = Context(calibration=lambda: iter([{"x": np.ones((1, 32), np.float32)}]), unquantized=model)
    with pytest.raises(PassError, match="tflite_int8"):
        TfliteRounding().apply(TfliteInt8(mode="weight_only").apply(model, own).model, own)


def test_a_layer_without_a_bias_is_rounded_all_the_same() -> None:
    x = np.random.default_rng(1).standard_normal((100, 40)).astype(np.float32).cumsum(axis=1)
    model = linear_tflite(np.random.default_rng(0).standard_normal((40, 16)).astype(np.float32))
    own = Context(calibration=lambda: ({"x": one[None]} for one in x[:64]), unquantized=model)
    nearest = TfliteInt8(mode="weight_only").apply(model, own).model
    rounded = TfliteRounding().apply(nearest, own).model
    truth = answers(model, x)
    assert np.abs(answers(rounded, x) - truth).mean() < 0.5 * np.abs(answers(nearest, x) - truth).mean()


def test_a_model_that_is_not_quantized_is_refused(context: Context) -> None:
    with pytest.raises(PassError, match="tflite_int8"):
        TfliteRounding().apply(context.unquantized, context)


def test_what_is_saved_is_what_was_loaded() -> None:
    model = dense_classifier()
    x = np.random.default_rng(3).standard_normal((20, tflite_models.INPUTS)).astype(np.float32)
    np.testing.assert_array_equal(answers(save(load(model)), x), answers(model, x))
