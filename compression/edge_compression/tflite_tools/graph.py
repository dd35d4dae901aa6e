"""The few things every pass does with a TFLite model: bytes to model and back, constants, and inner tensors of a run.

The schema's classes come with ai-edge-litert. Their own way of writing puts constants at any address and repeats what
is equal; `save` does neither.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from edge_compression.pass_api import Context, Feeds, PassError

Array = NDArray[Any]

IDENTIFIER = b"TFL3"
ALIGNMENT = 16
"""Of constants in the file, as the schema demands: engines read them where they lie."""


def load(data: bytes) -> Any:
    """Parse a model into the form that every pass expects, whichever converter wrote it: constants and options of
    operators in their tables, operators' codes in the field that has room for all of them, no vector missing.

    Raises PassError if it is none, cannot be read or keeps constants in another file.
    """
    from ai_edge_litert import schema_py_generated as schema

    if data[4:8] != IDENTIFIER:
        raise PassError("not a TFLite file")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    except Exception as error:  # flatbuffers' readers raise what their arithmetic gives
        raise PassError(f"not a TFLite file: {str(error)[:200]}") from error
    if model.externalBufferGroups or model.externalBuffers:
        raise PassError("weights are in another file")
    if not model.subgraphs or not model.buffers:
        raise PassError("a TFLite file without a graph")
    for buffer in model.buffers:
        _bring_inside(data, buffer)
    for code in model.operatorCodes or []:
        # Files written before 2020 have the deprecated field alone, whose codes end at 127.
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    for graph in model.subgraphs:
        _complete(data, graph)
    return model


def _bring_inside(data: bytes, buffer: Any) -> None:
    """Give a buffer the constant it has behind the tables. Writers put them there when they are many (ai-edge-quantizer
    from 256 KiB on) or larger than a table can address; engines before 2024 do not look there."""
    if buffer.offset > 1:  # as the schema has it, 0 and 1 mean that there is none
        buffer.data = np.frombuffer(_behind(data, buffer.offset, buffer.size), np.uint8)
    buffer.offset = buffer.size = 0


def _behind(data: bytes, start: int, size: int) -> bytes:
    if start + size > len(data):
        raise PassError(f"a constant of {size} bytes at {start} in a file of {len(data)}: it is cut short")
    return data[start : start + size]


def _complete(data: bytes, graph: Any) -> None:
    graph.inputs, graph.outputs = (_vector(one) for one in (graph.inputs, graph.outputs))
    graph.operators = list(graph.operators or [])
    for operator in graph.operators:
        operator.inputs, operator.outputs = _vector(operator.inputs), _vector(operator.outputs)
        if operator.largeCustomOptionsSize:
            kept = _behind(data, operator.largeCustomOptionsOffset, operator.largeCustomOptionsSize)
            operator.customOptions = np.frombuffer(kept, np.uint8)
            operator.largeCustomOptionsOffset = operator.largeCustomOptionsSize = 0
    for tensor in graph.tensors:
        tensor.shape = _vector(tensor.shape)


def _vector(values: Any) -> Any:
    return np.zeros(0, np.int32) if values is None else values


def kind_of(model: Any, operator: Any) -> str:
    """Return an operator's name: the schema's own, or for a custom one its author's."""
    from ai_edge_litert import schema_py_generated as schema

    code = model.operatorCodes[operator.opcodeIndex]
    if code.builtinCode == schema.BuiltinOperator.CUSTOM:
        return str((code.customCode or b"nameless").decode(errors="replace"))
    known = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    return known.get(code.builtinCode, f"operator {code.builtinCode}")


def custom_operators(model: Any) -> tuple[str, ...]:
    """Return the names of the operators that the engine itself has no kernel for, sorted."""
    from ai_edge_litert import schema_py_generated as schema

    custom = [code for code in model.operatorCodes or [] if code.builtinCode == schema.BuiltinOperator.CUSTOM]
    return tuple(sorted({(code.customCode or b"nameless").decode(errors="replace") for code in custom}))


class _Builder(flatbuffers.Builder):
    def __init__(self) -> None:
        super().__init__(1024)
        self.written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: Array) -> int:  # noqa: N802 - the name the schema's classes call
        key = (x.dtype.str, x.tobytes())
        if key not in self.written:
            if x.dtype == np.uint8:
                self.Prep(ALIGNMENT, x.nbytes)
            self.written[key] = super().CreateNumpyVector(x)
        return self.written[key]


def save(model: Any) -> bytes:
    """Return the model's bytes: equal vectors once, constants aligned."""
    builder = _Builder()
    try:
        builder.Finish(model.Pack(builder), IDENTIFIER)
    except flatbuffers.builder.BuilderSizeError as error:
        raise PassError("the model has more than 2 GB, which tables cannot address") from error
    return bytes(builder.Output())


def constant(model: Any, tensor: Any, dtype: type[np.generic]) -> Array:
    """Return a constant's values, which are of this dtype."""
    return np.frombuffer(model.buffers[tensor.buffer].data.tobytes(), dtype).reshape(tensor.shape)


def is_constant(model: Any, tensor: Any) -> bool:
    """Return whether a tensor has values of its own; one of resources or without values has none."""
    return model.buffers[tensor.buffer].data is not None


def replace(model: Any, tensor: Any, values: Array) -> None:
    """Give a constant other values of its own dtype; other tensors that share its buffer keep theirs."""
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    readers = [one for graph in model.subgraphs for one in graph.tensors if one.buffer == tensor.buffer]
    if len(readers) == 1:
        model.buffers[tensor.buffer] = buffer
    else:
        tensor.buffer = len(model.buffers)
        model.buffers.append(buffer)


def activations(model: bytes, context: Context, wanted: Collection[int]) -> Iterator[dict[int, Array]]:
    """Yield these tensors of the main graph, by index, for each calibration sample."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    custom = custom_operators(load(model))
    # Delegates keep inner tensors to themselves, and without preservation their memory is shared.
    interpreter = Interpreter(
        model_content=model,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    try:
        interpreter.allocate_tensors()
    except RuntimeError as error:
        if not custom:
            raise PassError(f"inner tensors cannot be seen: {str(error)[:300]}") from error
        what = f"inner tensors cannot be seen: {', '.join(custom)} runs in a delegate only, which keeps them to itself"
        raise PassError(what) from error
    fed = {detail["name"]: detail["index"] for detail in interpreter.get_input_details()}
    for feeds in context.calibration():
        for name, values in feeds.items():
            interpreter.set_tensor(fed[name], values)
        interpreter.invoke()
        yield {index: interpreter.get_tensor(index) for index in wanted}


def outputs(model: bytes, samples: Iterable[Feeds]) -> Iterator[list[Array]]:
    """Yield the model's outputs, in order, for each sample, as the engine runs it on a device."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    fed = {detail["name"]: detail["index"] for detail in interpreter.get_input_details()}
    answered = [detail["index"] for detail in interpreter.get_output_details()]
    for feeds in samples:
        for name, values in feeds.items():
            interpreter.set_tensor(fed[name], values)
        interpreter.invoke()
        yield [interpreter.get_tensor(index) for index in answered]
