"""Bias correction: what rounding the weights adds to each output channel on average is taken out of its bias.

The error of a convolution or fully connected layer is linear in its weights, so its mean over the calibration samples
is the mean output of the same layer with the weight error in place of the weights (Nagel et al. 2019,
arXiv:1906.04721, section 4.2, with measured instead of assumed inputs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_compression.contract import Applied, Context, PassError
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format

Array = NDArray[Any]
QUANTISED = "_quantized"
"""What onnxruntime's quantizer appends to a constant's name."""


class BiasCorrection(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="bias_correction"):
    """Correct the biases of a statically quantised model. Must follow `static_int8`; layers without a bias are left."""

    format: ClassVar[Format] = "onnx"
    quantises: ClassVar[bool] = True

    def apply(self, model: bytes, context: Context) -> Applied:
        from onnx import numpy_helper

        from edge_compression.onnx_graph import array, initializers, load, save

        quantised = load(model)
        constants = initializers(quantised)
        layers = _layers(load(context.unquantised), quantised)
        if not layers:
            raise PassError("no quantised layer with a bias; this pass must follow static_int8")
        errors = mean_errors(context.unquantised, layers, context)
        largest = 0.0
        for layer, error in zip(layers, errors, strict=True):
            bias = constants[layer.bias + QUANTISED]
            scale = array(constants[layer.bias + QUANTISED + "_scale"]).astype(np.float64)
            steps = np.rint(error / scale).astype(np.int64)
            corrected = np.clip(array(bias).astype(np.int64) - steps, -(2**31), 2**31 - 1).astype(np.int32)
            bias.CopyFrom(numpy_helper.from_array(corrected, bias.name))
            largest = max(largest, float(np.abs(error).max(initial=0.0)))
        return Applied(model=save(quantised), changed={"layers": len(layers), "largest_correction": largest})


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A float layer whose weights were quantised: its node, its bias and what quantising added to its weights."""

    node: Any
    bias: str
    weight_error: Array


def _layers(model: Any, quantised: Any) -> list[Layer]:
    from edge_compression.onnx_graph import array, initializers

    floats, constants = initializers(model), initializers(quantised)
    axes = _channel_axes(quantised)
    biases = [node.input[2] for node in model.graph.node if len(node.input) > 2]
    layers = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3:
            continue
        weight, bias = node.input[1], node.input[2]
        known = weight in floats and weight + QUANTISED in constants and bias + QUANTISED in constants
        # A bias that two layers share cannot be right for both.
        if known and biases.count(bias) == 1:
            error = dequantised(constants, weight, axes[weight + QUANTISED]) - array(floats[weight])
            layers.append(Layer(node=node, bias=bias, weight_error=error.astype(np.float32)))
    return layers


def _channel_axes(quantised: Any) -> dict[str, int]:
    """Return the axis of every dequantised constant; ONNX's default is 1."""
    return {
        node.input[0]: next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        for node in quantised.graph.node
        if node.op_type == "DequantizeLinear"
    }


def dequantised(constants: dict[str, Any], weight: str, axis: int) -> Array:
    """Return the values a quantised weight stands for, in float64; `axis` is the channel axis of its scales."""
    from edge_compression.onnx_graph import array

    values = array(constants[weight + QUANTISED]).astype(np.float64)
    scale = array(constants[weight + "_scale"]).astype(np.float64)
    zero = array(constants[weight + "_zero_point"]).astype(np.float64)
    if scale.size > 1:
        shape = [-1 if dimension == axis else 1 for dimension in range(values.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return np.asarray((values - zero) * scale)


def mean_errors(model: bytes, layers: list[Layer], context: Context) -> list[Array]:
    """Return for each layer the mean over samples and positions of its output error per channel, streamed."""
    from edge_compression.onnx_graph import load, save, session, with_outputs

    graph = load(model)
    outputs = []
    for index, layer in enumerate(layers):
        outputs.append(_shadow(graph, layer, index))
    opened = session(save(with_outputs(graph, outputs)))
    totals: list[Array] = []
    count = 0
    for feeds in context.calibration():
        means = [_channel_mean(values) for values in opened.run(outputs, feeds)]
        totals = [total + mean for total, mean in zip(totals, means, strict=True)] if totals else means
        count += 1
    return [total / max(1, count) for total in totals]


def _channel_mean(values: Array) -> Array:
    return np.asarray(values, np.float64).reshape(-1, values.shape[1]).mean(axis=0)


def _shadow(graph: Any, layer: Layer, index: int) -> str:
    """Add the layer once more with the weight error for weights and no bias; return the tensor of channel means."""
    from onnx import NodeProto, helper, numpy_helper

    weights, out = f"__weight_error_{index}", f"__output_error_{index}"
    graph.graph.initializer.append(numpy_helper.from_array(layer.weight_error, weights))
    node = NodeProto()
    node.CopyFrom(layer.node)
    node.name = f"__shadow_{index}"
    del node.input[:], node.output[:]
    node.input.extend([layer.node.input[0], weights])
    node.output.append(out)
    graph.graph.node.append(node)
    if node.op_type == "Gemm":
        return out
    graph.graph.node.append(helper.make_node("GlobalAveragePool", [out], [out + "_mean"], name=f"__mean_{index}"))
    return out + "_mean"
