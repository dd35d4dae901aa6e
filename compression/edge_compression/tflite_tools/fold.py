"""Constants that a TFLite model packs and unpacks at load: half-precision and sparse weights as the float32 they mean.

Converters write float16 weights as DEQUANTIZE(constant) and sparse ones as DENSIFY(constant) before every layer that
reads them. The quantizer and the passes after it know a layer's weights only as constants.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_compression.pass_api import PassError
from edge_compression.tflite_tools.graph import is_constant, kind_of, load, save

Array = NDArray[Any]

UNPACKING = ("DENSIFY", "DEQUANTIZE")

MIN_PACKED = 64
"""Constants of fewer values are left in float32: an operator and a tensor more would weigh as much as is saved."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A constant that was unpacked: the tensor with its float32 values, and the float16 tensor they were made of."""

    unpacked: int
    half: int


def folded(data: bytes) -> tuple[bytes, tuple[Packed, ...]]:
    """Return the model with such constants of the main graph in float32, all tensors under the index and name they had,
    and those that were float16. A model without any is given back as it is. Raises PassError for one that cannot be
    read."""
    model = load(data)
    found = _unpacking(model)
    if not found:
        return data, ()
    values = _unpacked(model, found)
    graph, halves = model.subgraphs[0], []
    unpackers = {id(operator) for operator in found}
    for operator in found:
        source, made = int(operator.inputs[0]), int(operator.outputs[0])
        tensor = graph.tensors[made]
        if tensor.type == _types().FLOAT32 and _is_half(graph.tensors[source]):
            halves.append(Packed(unpacked=made, half=source))
        _give(model, tensor, values[made])
    graph.operators = [operator for operator in graph.operators if id(operator) not in unpackers]
    _empty_unread(graph, {int(operator.inputs[0]) for operator in found})
    return save(model), tuple(halves)


def _empty_unread(graph: Any, packed: set[int]) -> None:
    """Take the values from packed constants that nothing reads any more; the tensors keep their places."""
    read = {int(index) for operator in graph.operators for index in operator.inputs}
    for index in packed - read:
        graph.tensors[index].buffer, graph.tensors[index].sparsity = 0, None


def packed_again(data: bytes, original: bytes, halves: Collection[Packed]) -> bytes:
    """Return the model in which those of the constants that are still float32 have the half-precision values of
    `original` again, with the operator that unpacks them: what the quantizer left must not grow."""
    model, before = load(data), load(original)
    graph = model.subgraphs[0]
    code = _dequantize(model)
    unpackers, bound = [], _read_beside_integers(model)
    for pair in halves:
        tensor, source = graph.tensors[pair.unpacked], before.subgraphs[0].tensors[pair.half]
        if tensor.type != _types().FLOAT32 or pair.unpacked in bound or not is_constant(model, tensor):
            continue
        half = _half_values(before, source)
        if (
            half is None
            or half.size < MIN_PACKED
            or not np.array_equal(half.astype(np.float32), _floats(model, tensor))
        ):
            continue
        _give(model, graph.tensors[pair.half], half)
        tensor.buffer = 0
        unpackers.append(_operator(code, pair.half, pair.unpacked))
    graph.operators = [*unpackers, *graph.operators]
    return save(model) if unpackers else data


def _read_beside_integers(model: Any) -> set[int]:
    """Return what is read by operators with integer weights: the engine demands that their biases are constants. So it
    does, to run them in its fast delegate, where the weights are unpacked before: each other bias cuts the graph in
    two."""
    graph, found = model.subgraphs[0], set[int]()
    integers = {index for index, tensor in enumerate(graph.tensors) if tensor.type == _types().INT8}
    unpacked = {
        int(operator.outputs[0])
        for operator in graph.operators
        if kind_of(model, operator) == "DEQUANTIZE" and int(operator.inputs[0]) in integers
    }
    for operator in graph.operators:
        read = {int(index) for index in operator.inputs if index >= 0}
        if read & (integers | unpacked):
            found.update(read)
    return found


def _unpacking(model: Any) -> list[Any]:
    """Return the operators that only unpack constants, in order."""
    graph, found = model.subgraphs[0], []
    kept = {int(index) for index in graph.outputs}
    known = {index for index, tensor in enumerate(graph.tensors) if is_constant(model, tensor)}
    for operator in graph.operators:
        if kind_of(model, operator) not in UNPACKING or int(operator.inputs[0]) not in known:
            continue
        made, source = int(operator.outputs[0]), graph.tensors[int(operator.inputs[0])]
        # Integer weights behind DEQUANTIZE were quantized by their maker: they are kept.
        if made in kept or source.type not in (_types().FLOAT16, _types().FLOAT32):
            continue
        known.add(made)
        found.append(operator)
    return found


def _unpacked(model: Any, operators: list[Any]) -> dict[int, Array]:
    """Return what these operators make, by tensor, as the engine itself makes it."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    part = load(save(model))
    graph = part.subgraphs[0]
    places = [model.subgraphs[0].operators.index(operator) for operator in operators]
    made = [int(operator.outputs[0]) for operator in operators]
    graph.operators = [graph.operators[place] for place in places]
    graph.inputs, graph.outputs = np.zeros(0, np.int32), np.array(made, np.int32)
    part.subgraphs, part.signatureDefs, part.metadata = [graph], None, None
    try:
        interpreter = Interpreter(
            model_content=save(part),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        interpreter.allocate_tensors()
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        raise PassError(f"packed weights cannot be unpacked: {str(error)[:300]}") from error
    return {index: np.array(interpreter.get_tensor(index)) for index in made}


def _give(model: Any, tensor: Any, values: Array) -> None:
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    tensor.buffer, tensor.sparsity = len(model.buffers), None
    model.buffers.append(buffer)


def _is_half(tensor: Any) -> bool:
    return bool(tensor.type == _types().FLOAT16)


def _half_values(model: Any, tensor: Any) -> Array | None:
    """Return the float16 constant; None for a sparse one, which has no plain form of the same bytes."""
    if tensor.sparsity is not None or not is_constant(model, tensor):
        return None
    return np.frombuffer(model.buffers[tensor.buffer].data.tobytes(), np.float16)


def _floats(model: Any, tensor: Any) -> Array:
    return np.frombuffer(model.buffers[tensor.buffer].data.tobytes(), np.float32)


def _dequantize(model: Any) -> int:
    """Return the place of DEQUANTIZE among the model's operator codes, in a version that takes float16."""
    from ai_edge_litert import schema_py_generated as schema

    kind = schema.BuiltinOperator.DEQUANTIZE
    for place, code in enumerate(model.operatorCodes):
        if code.builtinCode == kind and code.version >= 3:
            return place
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    code.version = 3
    model.operatorCodes = [*model.operatorCodes, code]
    return len(model.operatorCodes) - 1


def _operator(code: int, source: int, made: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    operator = schema.OperatorT()
    operator.opcodeIndex = code
    operator.inputs, operator.outputs = np.array([source], np.int32), np.array([made], np.int32)
    return operator


def _types() -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.TensorType
