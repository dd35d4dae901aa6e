"""Matrix products on 4-bit weights in blocks: ONNX Runtime's MatMulNBits, which unpacks them a block at a time.

Unlike `weight_only` with `unpack_at_load`, the weights stay packed in memory: for models whose matrices are what fills
it. Each block of inputs of one output has a scale of its own.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge_compression.onnx_tools.graph import load, save
from edge_compression.onnx_tools.graph_index import GraphIndex, drop_unused
from edge_compression.pass_api import Applied, Context, PassError
from edge_compression.quantization.weights import MIN_VALUES
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format

Array = NDArray[Any]
MIDDLE = 8
"""The stored value that stands for zero: without zero points of its own the operator subtracts it."""


class Matmul4Bit(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="matmul_4bit"):
    """Store the constant right-hand sides of float MatMul nodes in 4 bits, one scale for each `block` inputs of each
    output. `exact` multiplies in float; otherwise activations are rounded to 8 bits in each block, which is faster
    where the CPU has 8-bit dot products. Raises PassError when there is no such MatMul."""

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = True

    block: Literal[16, 32, 64, 128] = 32
    exact: bool = True

    def apply(self, model: bytes, context: Context) -> Applied:  # noqa: ARG002 - the contract of every pass
        graph = load(model)
        view = GraphIndex(graph)
        count = 0
        for node in view.nodes:
            values = view.constant(node.input[1]) if node.op_type == "MatMul" else None
            if values is None or values.ndim != 2 or values.dtype != np.float32 or values.size < MIN_VALUES:
                continue
            packed, scales = blocks(values, self.block)
            name = f"{node.input[1]}_4bit_{count}"
            graph.graph.initializer.append(numpy_helper.from_array(packed, name))
            graph.graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales"))
            self._replace(node, name, values.shape)
            count += 1
        if not count:
            raise PassError("no matrix product with constant weights")
        if all(entry.domain != "com.microsoft" for entry in graph.opset_import):
            graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        drop_unused(graph)
        return Applied(model=save(graph), changed={"matrix_products": count})

    def _replace(self, node: onnx.NodeProto, name: str, shape: tuple[int, ...]) -> None:
        made = helper.make_node(
            "MatMulNBits",
            [node.input[0], name, f"{name}_scales"],
            list(node.output),
            name=node.name,
            domain="com.microsoft",
            K=shape[0],
            N=shape[1],
            bits=4,
            block_size=self.block,
            accuracy_level=1 if self.exact else 4,
        )
        node.CopyFrom(made)


def blocks(values: Array, block: int) -> tuple[Array, Array]:
    """Return [inputs, outputs] weights as the operator stores them: [outputs, blocks, block / 2] bytes, the first of
    two values in the low half, and [outputs * blocks] scales. Each block is spread over -8 to 7 with the sign of its
    largest weight at -8, so that no level is left unused."""
    inputs, outputs = values.shape
    count = -(-inputs // block)
    padded = np.zeros((outputs, count * block), np.float32)
    padded[:, :inputs] = values.T
    cut = padded.reshape(outputs, count, block)
    largest = np.take_along_axis(cut, np.abs(cut).argmax(axis=2)[:, :, None], axis=2)
    scales = np.where(largest == 0, 1.0, largest / -MIDDLE).astype(np.float32)
    stored = (np.clip(np.rint(cut / scales), -MIDDLE, MIDDLE - 1) + MIDDLE).astype(np.uint8)
    return stored[:, :, 0::2] | stored[:, :, 1::2] << 4, scales.reshape(-1)
