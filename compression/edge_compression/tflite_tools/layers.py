"""Quantized layers of a TFLite model beside the float layers they were made from, in words the numerical parts know.

A layer is given as an ONNX node with weights and inputs in ONNX's order of axes, so that `moments` and `rounded_layers`
serve both formats. The quantizer leaves a constant the index and name it had: by these the two models are paired.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from edge_compression.quantization.input_moments import inputs
from edge_compression.quantization.quantized_layers import QuantizedLayer
from edge_compression.tflite_tools.graph import constant, is_constant

Array = NDArray[Any]

CHANNELS_FIRST = (0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class TfliteLayer(QuantizedLayer):
    """A layer of the first graph. `weight` and `bias` are the tensors' indices as text, `axes` the weights' axes in the
    file in ONNX's order."""

    axes: tuple[int, ...]

    def inputs(self, values: Array) -> Array:
        if self.node.op_type == "Gemm":  # what it reads may have any shape: rows follow one another
            return inputs(self.node, self.values, values.reshape(-1, self.values.shape[1]))
        return inputs(self.node, self.values, values.transpose(CHANNELS_FIRST))

    def stored(self, integers: Array) -> Array:
        """Return integers in the order of axes of the file."""
        return np.ascontiguousarray(integers.transpose(np.argsort(self.axes)))


def tflite_layers(model: Any, quantized: Any) -> Iterator[TfliteLayer]:
    """Yield the layers of `model` whose weights are 8-bit integers with one scale a channel, or one for all, in
    `quantized`. Weights that two operators read are left out, as is a bias: what is right for one may be wrong for the
    other."""
    from ai_edge_litert import schema_py_generated as schema

    graph, changed = model.subgraphs[0], quantized.subgraphs[0]
    readers = Counter(int(index) for operator in graph.operators for index in operator.inputs)
    for operator in graph.operators:
        known = _described(model, graph, operator)
        if known is None or readers[int(operator.inputs[1])] > 1:
            continue
        node, axes = known
        weight, bias = int(operator.inputs[1]), int(operator.inputs[2]) if len(operator.inputs) > 2 else -1
        before, after = graph.tensors[weight], changed.tensors[weight]
        if after.type != schema.TensorType.INT8 or not _same(before, after) or not is_constant(quantized, after):
            continue
        values, found = constant(model, before, np.float32), after.quantization
        scale, zero_point = (np.asarray(one, np.float64) for one in (found.scale, found.zeroPoint))
        if scale.size > 1 and (found.quantizedDimension != axes[0] or scale.size != values.shape[axes[0]]):
            continue
        own_bias = bias >= 0 and readers[bias] == 1 and is_constant(quantized, changed.tensors[bias])
        by_channel = (-1, *[1] * (values.ndim - 1)) if scale.size > 1 else ()
        yield TfliteLayer(
            node=node,
            weight=str(weight),
            bias=str(bias) if own_bias else None,
            values=values.transpose(axes),
            integers=constant(quantized, after, np.int8).transpose(axes),
            scale=scale.reshape(by_channel),
            zero_point=zero_point.reshape(by_channel),
            axes=axes,
        )


def _same(before: Any, after: Any) -> bool:
    """Return whether a tensor is the other one quantized; names are compared where the first has one."""
    return np.array_equal(before.shape, after.shape) and before.name in (None, b"", after.name)


def _described(model: Any, graph: Any, operator: Any) -> tuple[NodeProto, tuple[int, ...]] | None:
    """Return a layer of constant float weights as an ONNX node, whose first input is the index of what it reads, and
    the weights' axes in ONNX's order; None for what is none."""
    from ai_edge_litert import schema_py_generated as schema

    kinds, kind = schema.BuiltinOperator, model.operatorCodes[operator.opcodeIndex].builtinCode
    if kind not in (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D, kinds.FULLY_CONNECTED):
        return None
    read, weights = (graph.tensors[int(index)] for index in operator.inputs[:2])
    if {read.type, weights.type} != {schema.TensorType.FLOAT32} or not is_constant(model, weights):
        return None
    names, options = [str(int(operator.inputs[0])), "weights"], operator.builtinOptions
    if kind == kinds.FULLY_CONNECTED:
        plain = options.weightsFormat == schema.FullyConnectedOptionsWeightsFormat.DEFAULT
        return (helper.make_node("Gemm", names, ["y"], transB=1), (0, 1)) if plain else None
    depthwise, channels = kind == kinds.DEPTHWISE_CONV_2D, int(read.shape[3])
    node = helper.make_node(
        "Conv",
        names,
        ["y"],
        group=channels if depthwise else channels // int(weights.shape[3]),
        strides=[options.strideH, options.strideW],
        dilations=[options.dilationHFactor, options.dilationWFactor],
        auto_pad="SAME_UPPER" if options.padding == schema.Padding.SAME else "VALID",
    )
    return node, (3, 0, 1, 2) if depthwise else CHANNELS_FIRST
