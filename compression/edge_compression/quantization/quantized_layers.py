"""Quantized layers beside the float layers they were made from: what passes after a quantizing one change.

Here: pairing them by the names ONNX Runtime's quantizer gives constants, and reading their integers and scales. What is
done with them is the business of `passes.bias_correction` and `passes.second_order_rounding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_compression.onnx_tools.graph import array, initializers
from edge_compression.quantization.input_moments import inputs

Array = NDArray[Any]
QUANTIZED = "_quantized"
"""What onnxruntime's quantizer appends to a constant's name."""

OPERATORS = ("Conv", "Gemm", "MatMul")


def quantized_layers(model: onnx.ModelProto, quantized: onnx.ModelProto) -> list[QuantizedLayer]:
    """Return the layers of `model` whose constant weights are quantized in `quantized`, in the order of its nodes.
    Weights that two layers share are left out: what is right for one may be wrong for the other."""
    floats, constants = initializers(model), initializers(quantized)
    axes = _channel_axes(quantized)
    nodes = [node for node in model.graph.node if node.op_type in OPERATORS and len(node.input) > 1]
    weights = [node.input[1] for node in nodes]
    biases = [node.input[2] for node in nodes if len(node.input) > 2]
    layers = []
    for node in nodes:
        weight, bias = node.input[1], node.input[2] if len(node.input) > 2 else ""
        if weight not in floats or weight + QUANTIZED not in axes or weights.count(weight) > 1:
            continue
        own_bias = (bias + QUANTIZED in constants or bias in constants) and biases.count(bias) == 1
        integers = array(constants[weight + QUANTIZED])
        shape = _broadcast(integers.ndim, axes[weight + QUANTIZED])
        scale = array(constants[weight + "_scale"]).astype(np.float64)
        zero = constants.get(weight + "_zero_point")
        zero_point = np.zeros(()) if zero is None else array(zero).astype(np.float64)
        layers.append(
            QuantizedLayer(
                node=node,
                weight=weight,
                bias=bias if own_bias else None,
                values=array(floats[weight]),
                integers=integers,
                scale=scale.reshape(shape) if scale.size > 1 else scale.reshape(()),
                zero_point=zero_point.reshape(shape) if zero_point.size > 1 else zero_point.reshape(()),
            )
        )
    return layers


def _channel_axes(quantized: onnx.ModelProto) -> dict[str, int]:
    """Return the axis of every dequantized constant; ONNX's default is 1."""
    constants = initializers(quantized)
    return {
        node.input[0]: next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        for node in quantized.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }


def _broadcast(dimensions: int, axis: int) -> list[int]:
    return [-1 if dimension == axis % dimensions else 1 for dimension in range(dimensions)]


@dataclass(frozen=True, kw_only=True)
class QuantizedLayer:
    """A float layer whose weights were quantized. `values` are the weights before, `integers` after; `scale` and
    `zero_point` broadcast against them; `bias` names a constant bias, quantized or not, that no other layer has."""

    node: Any
    weight: str
    bias: str | None
    values: Array
    integers: Array
    scale: Array
    zero_point: Array

    @property
    def dequantized(self) -> Array:
        """The values the integers stand for, in float64."""
        return self.worth(self.integers)

    def worth(self, integers: Array) -> Array:
        """Return the values that these integers in the layer's place would stand for, in float64."""
        return np.asarray((integers.astype(np.float64) - self.zero_point) * self.scale)

    def inputs(self, values: Array) -> Array:
        """Return what the layer's rows are multiplied with of its activation, as `moments.inputs` has it."""
        return inputs(self.node, self.values, values)
