"""Better integers and biases for quantized TFLite models of the same bytes and speed: errors of the weights cancel in
each layer's output, and what is left of them on average is taken out of its bias.

What `second_order_rounding` and `bias_correction` do for ONNX, in one round over the calibration samples. How integers
are chosen is in `edge_compression.quantization.layer_rounding`, how layers are read in
`edge_compression.tflite_tools.layers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from edge_compression.pass_api import Applied, Context, NothingToDoError
from edge_compression.quantization.layer_rounding import fits, rounded, seen_inputs
from edge_compression.tflite_tools.fold import folded
from edge_compression.tflite_tools.graph import activations, constant, load, replace, save
from edge_compression.tflite_tools.layers import tflite_layers
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format

Array = NDArray[Any]


DAMPING = 0.3
"""More than ONNX's 0.01: .tflite models come with few samples, and MediaPipe's detectors lose 12 dB on pictures unlike
those of calibration when the integers fit these closely, 2 dB at most when they do not."""


class TfliteRounding(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="tflite_rounding"):
    """Round the weights of a quantized TFLite model anew and correct its biases. Must follow `tflite_int8`. `damping`:
    share of the mean second moment added to each one."""

    format: ClassVar[Format] = "tflite"
    quantizes: ClassVar[bool] = True
    refines: ClassVar[bool] = True

    damping: Annotated[float, Meta(gt=0.0, le=1.0)] = DAMPING

    def apply(self, model: bytes, context: Context) -> Applied:
        quantized = load(model)
        unquantized, _ = folded(context.unquantized)
        found = tflite_layers(load(unquantized), quantized)
        layers = {layer.weight: layer for layer in found if fits(layer)}
        if not layers:
            raise NothingToDoError("no layer with quantized weights; this pass must follow tflite_int8")
        tensors = quantized.subgraphs[0].tensors
        before = after = 0.0
        for seen in seen_inputs(list(layers.values()), partial(_activations, unquantized, context)):
            better = rounded(seen, damping=self.damping)
            before, after = before + better.before, after + better.after
            layer = layers[seen.layer.weight]
            replace(quantized, tensors[int(layer.weight)], layer.stored(better.integers))
            if layer.bias is not None:
                _correct(quantized, tensors[int(layer.bias)], seen.mean_error(better.integers))
        kept = after / before if before else 1.0
        return Applied(model=save(quantized), changed={"layers": len(layers), "squared_error_kept": kept})


def _activations(model: bytes, context: Context, names: list[str]) -> Iterator[dict[str, Array]]:
    """Yield these tensors of the float model, named by their indices, for each calibration sample."""
    for values in activations(model, context, [int(name) for name in names]):
        yield {str(index): value for index, value in values.items()}


def _correct(model: Any, bias: Any, error: Array) -> None:
    """Take the mean error of each channel out of a bias, an integer one in steps of its own scale."""
    from ai_edge_litert import schema_py_generated as schema

    if bias.type == schema.TensorType.FLOAT32:
        replace(model, bias, constant(model, bias, np.float32) - error.astype(np.float32))
    elif bias.type == schema.TensorType.INT32:
        steps = np.rint(error / np.asarray(bias.quantization.scale, np.float64)).astype(np.int64)
        integers = constant(model, bias, np.int32).astype(np.int64) - steps
        replace(model, bias, np.clip(integers, -(2**31), 2**31 - 1).astype(np.int32))
