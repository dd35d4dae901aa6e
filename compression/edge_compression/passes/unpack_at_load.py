"""Unpacking at load: weights stored in few bits are turned into float once, when the engine loads the model.

DequantizeLinear before a weight is computed at every run, because ONNX Runtime keeps it for fusing. The same in Cast
and Mul is a constant expression, which any engine folds. The file is as small and the speed is the original's; the
memory is the original's too.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_compression.onnx_tools.graph import array, count_operators, initializers, load, save
from edge_compression.onnx_tools.graph_index import drop_unused
from edge_compression.pass_api import Applied, Context, NothingToDoError, PassError
from edge_compression.quantization.weights import along
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format

Array = NDArray[Any]
NIBBLE = 8
"""What is added to a four-bit integer in [-7, 7] so that it is stored without a sign."""


class UnpackAtLoad(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="unpack_at_load"):
    """Write each DequantizeLinear of a constant as Cast and Mul. Integers that all fit in four bits are packed two a
    byte. Must follow `weight_only`: a statically quantized model needs its DequantizeLinear for fusing."""

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = True
    refines: ClassVar[bool] = True

    def apply(self, model: bytes, context: Context) -> Applied:  # noqa: ARG002 - the contract of every pass
        graph = load(model)
        if count_operators(graph, ("QuantizeLinear",)):
            raise PassError("activations are quantized as well; this pass is for weight-only models")
        constants = initializers(graph)
        packed = unpacked = 0
        for node in list(graph.graph.node):
            if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
                continue
            integers, scale = (array(constants[name]) for name in node.input[:2])
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            graph.graph.node.remove(node)
            in_nibbles = integers.size % 2 == 0 and int(np.abs(integers.astype(np.int16)).max()) < NIBBLE
            source = _pack(graph.graph, node.input[0], integers) if in_nibbles else node.input[0]
            _unpack(graph.graph, source, along(scale, axis % integers.ndim, integers.ndim), node.output[0])
            packed, unpacked = packed + in_nibbles, unpacked + 1
        if not unpacked:
            raise NothingToDoError("no stored weights to unpack; this pass must follow weight_only")
        drop_unused(graph)
        return Applied(model=save(graph), changed={"weights": unpacked, "packed_in_four_bits": packed})


def _unpack(graph: onnx.GraphProto, source: str, scale: Array, target: str) -> None:
    graph.initializer.append(numpy_helper.from_array(scale, f"{target}_unpacked_scale"))
    graph.node.append(helper.make_node("Cast", [source], [f"{target}_cast"], to=TensorProto.FLOAT))
    graph.node.append(helper.make_node("Mul", [f"{target}_cast", f"{target}_unpacked_scale"], [target]))


def _pack(graph: onnx.GraphProto, name: str, integers: Array) -> str:
    """Add the integers two a byte, high halves first, and the nodes that take them apart; return the result's name.

    Shifting left in a byte drops its high half, so two shifts take out the low one: BitShift is in every operator set
    from 11, the four-bit types only from 21.
    """
    flat = (integers.reshape(2, -1).astype(np.int16) + NIBBLE).astype(np.uint8)
    graph.initializer.extend(
        (
            numpy_helper.from_array((flat[0] << 4 | flat[1]).astype(np.uint8), f"{name}_halves"),
            numpy_helper.from_array(np.uint8(4), f"{name}_four"),
            numpy_helper.from_array(np.float32(NIBBLE), f"{name}_offset"),
            numpy_helper.from_array(np.array(integers.shape, np.int64), f"{name}_shape"),
        )
    )
    step = helper.make_node
    graph.node.extend(
        (
            step("BitShift", [f"{name}_halves", f"{name}_four"], [f"{name}_high"], direction="RIGHT"),
            step("BitShift", [f"{name}_halves", f"{name}_four"], [f"{name}_left"], direction="LEFT"),
            step("BitShift", [f"{name}_left", f"{name}_four"], [f"{name}_low"], direction="RIGHT"),
            step("Concat", [f"{name}_high", f"{name}_low"], [f"{name}_bytes"], axis=0),
            step("Cast", [f"{name}_bytes"], [f"{name}_floats"], to=TensorProto.FLOAT),
            step("Sub", [f"{name}_floats", f"{name}_offset"], [f"{name}_centerd"]),
            step("Reshape", [f"{name}_centerd", f"{name}_shape"], [f"{name}_integers"]),
        )
    )
    return f"{name}_integers"
