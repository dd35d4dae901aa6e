"""Bias correction: what rounding the weights adds to each output channel on average is taken out of its bias.

The error of a convolution or fully connected layer is linear in its weights, so its mean over the calibration samples
is the mean output of the same layer with the weight error in place of the weights (Nagel et al. 2019,
arXiv:1906.04721, section 4.2, with measured instead of assumed inputs).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edge_compression.onnx_tools.graph import array, initializers, load, save, session, with_outputs
from edge_compression.pass_api import Applied, Context, NothingToDoError
from edge_compression.quantization.quantized_layers import QUANTIZED, QuantizedLayer, quantized_layers
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format

Array = NDArray[Any]


class BiasCorrection(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="bias_correction"):
    """Correct the biases of a quantized model. Must follow `static_int8` or `weight_only`; layers without a bias of
    their own are left."""

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = True
    refines: ClassVar[bool] = True

    def apply(self, model: bytes, context: Context) -> Applied:
        quantized = load(model)
        constants = initializers(quantized)
        found = quantized_layers(load(context.unquantized), quantized)
        if not found:
            raise NothingToDoError("no quantized layer; this pass must follow static_int8 or weight_only")
        layers = [layer for layer in found if layer.bias]
        if not layers:
            return Applied(model=model, changed={"layers": 0})
        errors = mean_errors(context.unquantized, layers, context)
        for layer, error in zip(layers, errors, strict=True):
            _correct(constants, str(layer.bias), error)
        largest = max(float(np.abs(error).max(initial=0.0)) for error in errors)
        return Applied(model=save(quantized), changed={"layers": len(layers), "largest_correction": largest})


def _correct(constants: dict[str, TensorProto], name: str, error: Array) -> None:
    """Take the mean error of each channel out of a bias, an integer one in steps of its own scale."""
    bias = constants.get(name + QUANTIZED)
    if bias is None:
        values = array(constants[name])
        corrected = (values - error).astype(values.dtype)
        constants[name].CopyFrom(numpy_helper.from_array(corrected, name))
        return
    steps = np.rint(error / array(constants[f"{name}{QUANTIZED}_scale"]).astype(np.float64)).astype(np.int64)
    integers = np.clip(array(bias).astype(np.int64) - steps, -(2**31), 2**31 - 1).astype(np.int32)
    bias.CopyFrom(numpy_helper.from_array(integers, bias.name))


def mean_errors(model: bytes, layers: list[QuantizedLayer], context: Context) -> list[Array]:
    """Return for each layer the mean over samples and positions of its output error per channel, streamed."""
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


def _shadow(graph: Any, layer: QuantizedLayer, index: int) -> str:
    """Add the layer once more with the weight error for weights and no bias; return the tensor of channel means."""
    weights, out = f"__weight_error_{index}", f"__output_error_{index}"
    error = layer.dequantized - layer.values
    graph.graph.initializer.append(numpy_helper.from_array(error.astype(layer.values.dtype), weights))
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
