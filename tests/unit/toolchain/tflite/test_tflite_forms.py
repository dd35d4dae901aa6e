"""Forms of one model that converters write: constants behind the tables, half precision, sparse weights, operators'
codes in the field of older files, operators of others. The oracle is LiteRT on the plain form."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from support.makers.tflite_files import custom_tflite, linear_tflite
from support.makers.tflite_models import Array, answers, convolutional, images, packed, parsed

from edge_compression.pass_api import Context, NothingToDoError, PassError
from edge_compression.passes import TfliteCompact, TfliteInt8, TfliteRounding
from edge_compression.tflite_tools.fold import folded
from edge_compression.tflite_tools.graph import activations, custom_operators, kind_of, load, save

# The quantizer opens an interpreter of its own that warns of the memory it takes.
pytestmark = pytest.mark.filterwarnings("ignore:Warning. Enabling .experimental_preserve_all_tensors:UserWarning")

X = images(60, seed=2)
TYPES = schema.TensorType
PLAIN = convolutional()


def feeds() -> Iterator[dict[str, Any]]:
    for one in images(24, seed=1):
        yield {"x": one[None]}


def context_of(model: bytes) -> Context:
    return Context(calibration=feeds, unquantized=model)


def behind(model: bytes) -> bytes:
    """Return the model with its constants behind the tables, as ai-edge-quantizer writes those of 256 KiB."""
    moved = parsed(model)
    contents = [(buffer, buffer.data.tobytes()) for buffer in moved.buffers if buffer.data is not None]
    for buffer, _ in contents:
        buffer.data, buffer.offset, buffer.size = None, 1 << 40, 1 << 40  # as wide as what comes: sizes must not change
    start = len(packed(moved))
    tail = b""
    for buffer, content in contents:
        tail += bytes(-(start + len(tail)) % 16)
        buffer.offset, buffer.size = start + len(tail), len(content)
        tail += content
    return packed(moved) + tail


def half(model: bytes, *, sparse: bool = False) -> bytes:
    """Return the model with weights in float16 and a DEQUANTIZE before each; `sparse`: the fully connected one's in a
    compressed form with a DENSIFY as well."""
    changed = parsed(model)
    graph = changed.subgraphs[0]
    unpackers = []
    for operator in graph.operators:
        for index in operator.inputs[1:]:
            tensor = graph.tensors[index]
            values = np.frombuffer(changed.buffers[tensor.buffer].data.tobytes(), np.float32).astype(np.float16)
            source = schema.TensorT()
            source.name, source.shape, source.type = tensor.name + b"_half", list(tensor.shape), TYPES.FLOAT16
            source.buffer, tensor.buffer = len(changed.buffers), 0
            changed.buffers.append(schema.BufferT())
            changed.buffers[-1].data = np.frombuffer(values.tobytes(), np.uint8)
            graph.tensors.append(source)
            place = len(graph.tensors) - 1
            if sparse and tensor.name == b"whole":
                place = densified(changed, graph, place, values.reshape(tensor.shape))
                unpackers.append(step(changed, "DENSIFY", len(graph.tensors) - 2, place, 1))
            unpackers.append(step(changed, "DEQUANTIZE", place, int(index), 3))
    graph.operators = [*unpackers, *graph.operators]
    return packed(changed)


def densified(model: Any, graph: Any, index: int, values: Array) -> int:
    """Make the constant one of compressed rows; return the tensor that DENSIFY makes of it."""
    tensor, dense = graph.tensors[index], schema.TensorT()
    dense.name, dense.shape, dense.type, dense.buffer = b"dense", list(values.shape), TYPES.FLOAT16, 0
    rows = [np.flatnonzero(row) for row in values]
    model.buffers[tensor.buffer].data = np.frombuffer(values[values != 0].tobytes(), np.uint8)
    whole, compressed = schema.DimensionMetadataT(), schema.DimensionMetadataT()
    whole.format, whole.denseSize = schema.DimensionType.DENSE, values.shape[0]
    compressed.format = schema.DimensionType.SPARSE_CSR
    for name, content in (
        ("Segments", np.cumsum([0, *map(len, rows)])),
        ("Indices", np.concatenate(rows)),
    ):
        vector = schema.Int32VectorT()
        vector.values = content.astype(np.int32).tolist()
        setattr(compressed, f"array{name}", vector)
        setattr(compressed, f"array{name}Type", schema.SparseIndexVector.Int32Vector)
    tensor.sparsity = schema.SparsityParametersT()
    tensor.sparsity.traversalOrder, tensor.sparsity.blockMap = [0, 1], []
    tensor.sparsity.dimMetadata = [whole, compressed]
    graph.tensors.append(dense)
    return len(graph.tensors) - 1


def step(model: Any, kind: str, source: int, made: int, version: int) -> Any:
    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
    code.version = version
    model.operatorCodes.append(code)
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = [source], [made]
    return operator


def old(model: bytes) -> bytes:
    """Return the model as converters before 2020 wrote it: the operators' codes in the first, narrow field."""
    changed = parsed(model)
    for code in changed.operatorCodes:
        code.builtinCode = 0
    return packed(changed)


def sparse_weights() -> bytes:
    model = parsed(PLAIN)
    buffer = next(model.buffers[one.buffer] for one in model.subgraphs[0].tensors if one.name == b"whole")
    values = np.frombuffer(buffer.data.tobytes(), np.float32).copy()
    values[np.abs(values) < np.quantile(np.abs(values), 0.7)] = 0.0
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    return packed(model)


FORMS = {
    "behind the tables": lambda: behind(PLAIN),
    "half precision": lambda: half(PLAIN),
    "half precision behind the tables": lambda: behind(half(PLAIN)),
    "sparse": lambda: half(sparse_weights(), sparse=True),
    "old codes": lambda: old(PLAIN),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_compacted_without_a_change_of_bits_and_grows_by_nothing(form: str) -> None:
    model = FORMS[form]()
    small = TfliteCompact().apply(model, context_of(model)).model
    assert len(small) < len(model)
    assert all(buffer.offset <= 1 for buffer in parsed(small).buffers)
    np.testing.assert_array_equal(answers(small, X), answers(model, X))


@pytest.mark.parametrize("mode", ["weight_only", "dynamic", "static"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_quantized_as_the_plain_one_is(form: str, mode: Any) -> None:
    model = FORMS[form]()
    own = context_of(model)
    made = TfliteRounding().apply(TfliteInt8(mode=mode).apply(model, own).model, own).model
    found = TfliteCompact().apply(made, own).model
    assert len(found) < len(model)
    truth = answers(model, X, optimized=True)
    assert np.abs(answers(found, X, optimized=True) - truth).max() < 0.05 * np.ptp(truth)


def test_folding_keeps_indices_and_names_and_leaves_no_unpacking_operator() -> None:
    model = half(sparse_weights(), sparse=True)
    plain, halves = folded(model)
    before, after = load(model), load(plain)
    assert [one.name for one in after.subgraphs[0].tensors] == [one.name for one in before.subgraphs[0].tensors]
    assert {kind_of(after, one) for one in after.subgraphs[0].operators}.isdisjoint({"DEQUANTIZE", "DENSIFY"})
    assert len(halves) == 8
    np.testing.assert_array_equal(answers(plain, X), answers(model, X))
    assert folded(PLAIN) == (PLAIN, ())


def test_what_stays_in_float_stays_in_half_precision() -> None:
    model = half(PLAIN)
    own = context_of(model)
    mixed = TfliteInt8(mode="weight_only", sqnr=46.0).apply(model, own)
    assert 0 < int(mixed.changed["layers_in_float"]) < 4
    assert len(TfliteCompact().apply(mixed.model, own).model) < len(TfliteCompact().apply(model, own).model)
    every = TfliteInt8(mode="weight_only").apply(model, own).model
    truth = answers(model, X)
    assert np.square(answers(mixed.model, X) - truth).sum() < np.square(answers(every, X) - truth).sum()


def test_biases_beside_integer_weights_stay_constants_so_that_the_fast_delegate_takes_the_whole_graph() -> None:
    """A bias that is unpacked from half precision beside weights unpacked from integers cuts the graph in two there:
    MediaPipe's hand landmarks took three times as long."""
    model = half(PLAIN)
    graph = load(TfliteInt8(mode="weight_only").apply(model, context_of(model)).model)
    tensors, operators = graph.subgraphs[0].tensors, graph.subgraphs[0].operators
    unpacked = {
        int(one.outputs[0]): tensors[int(one.inputs[0])].type
        for one in operators
        if kind_of(graph, one) == "DEQUANTIZE"
    }
    kinds = [{unpacked[int(index)] for index in one.inputs if int(index) in unpacked} for one in operators]
    assert {TYPES.INT8} in kinds
    assert {TYPES.INT8, TYPES.FLOAT16} not in kinds


def test_an_int8_file_is_left_as_it_is_and_the_reason_is_its_own_scales() -> None:
    own = context_of(PLAIN)
    quantized = TfliteInt8(mode="static").apply(PLAIN, own).model
    with pytest.raises(NothingToDoError, match="its own scales are kept"):
        TfliteInt8(mode="static").apply(quantized, own)


def test_custom_operators_are_named_where_inner_tensors_are_needed() -> None:
    model = custom_tflite(np.ones((4, 3), np.float32))
    own = Context(calibration=lambda: iter([{"x": np.ones((1, 4), np.float32)}]), unquantized=model)
    assert custom_operators(load(model)) == ("Backdoor",)
    assert save(load(TfliteCompact().apply(model, own).model))
    with pytest.raises(PassError, match="Backdoor"):
        TfliteInt8(mode="weight_only").apply(model, own)
    with pytest.raises(PassError, match="Backdoor"):
        next(activations(model, own, [0]))


def test_a_constant_that_is_cut_off_is_said_to_be() -> None:
    model = behind(linear_tflite(np.ones((40, 30), np.float32)))
    with pytest.raises(PassError, match="cut short"):
        load(model[:-100])
