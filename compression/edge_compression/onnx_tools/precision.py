"""In which numbers a graph computes already: what a pass must know before it would convert a model a second time."""

from __future__ import annotations

import onnx

from edge_compression.onnx_tools.graph import load
from edge_compression.pass_api import PassError

INTEGER_ARITHMETIC = frozenset(
    (
        "QuantizeLinear",
        "DynamicQuantizeLinear",
        "ConvInteger",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "QGemm",
        "QAttention",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulNBits",
    )
)
"""Operators that only quantized graphs have; a DequantizeLinear alone may stand before stored weights."""

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)


def is_quantized(model: onnx.ModelProto) -> bool:
    """Return whether the graph quantizes activations: its scales were chosen, or learned, by its maker."""
    return any(node.op_type in INTEGER_ARITHMETIC for node in model.graph.node)


def is_half(model: onnx.ModelProto) -> bool:
    """Return whether most of the graph's float constants are in half precision."""
    sizes = dict.fromkeys(FLOATS, 0)
    for tensor in model.graph.initializer:
        if tensor.data_type in sizes:
            sizes[tensor.data_type] += _elements(tensor)
    return sizes[onnx.TensorProto.FLOAT16] > sum(sizes.values()) / 2


def _elements(tensor: onnx.TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count


def refuse_quantized(data: bytes) -> None:
    """Raise PassError for a graph that is quantized already."""
    if is_quantized(load(data)):
        raise PassError("the model is quantized already; its own scales are kept")


def refuse_half(data: bytes) -> None:
    """Raise PassError for a graph that computes in half precision already."""
    if is_half(load(data)):
        raise PassError("the model's weights are float16 already")
