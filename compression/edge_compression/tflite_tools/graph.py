"""The few things every pass does with a TFLite model: bytes to model and back, constants, and inner tensors of a run.

The schema's classes come with ai-edge-litert. Their own way of writing puts constants at any address and repeats what
is equal; `save` does neither.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from edge_compression.pass_api import Context, PassError

Array = NDArray[Any]

IDENTIFIER = b"TFL3"
ALIGNMENT = 16
"""Of constants in the file, as the schema demands: engines read them where they lie."""


def load(data: bytes) -> Any:
    """Parse a model. Raises PassError if it is none or keeps constants outside of the tables."""
    from ai_edge_litert import schema_py_generated as schema

    if data[4:8] != IDENTIFIER:
        raise PassError("not a TFLite file")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    operators = [operator for graph in model.subgraphs for operator in graph.operators or []]
    behind = any(buffer.offset or buffer.size for buffer in model.buffers)
    if behind or any(operator.largeCustomOptionsSize for operator in operators):
        raise PassError("constants lie behind the model's tables, as those of more than 2 GB do")
    if model.externalBufferGroups or model.externalBuffers:
        raise PassError("weights are in another file")
    return model


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
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def constant(model: Any, tensor: Any, dtype: type[np.generic]) -> Array:
    """Return a constant's values, which are of this dtype."""
    return np.frombuffer(model.buffers[tensor.buffer].data.tobytes(), dtype).reshape(tensor.shape)


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

    # Delegates keep inner tensors to themselves, and without preservation their memory is shared.
    interpreter = Interpreter(
        model_content=model,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    fed = interpreter.get_input_details()[0]["index"]
    for feeds in context.calibration():
        interpreter.set_tensor(fed, next(iter(feeds.values())))
        interpreter.invoke()
        yield {index: interpreter.get_tensor(index) for index in wanted}
