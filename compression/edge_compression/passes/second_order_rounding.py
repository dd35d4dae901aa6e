"""Second-order rounding: the integers of quantized weights chosen so that their errors cancel in each layer's output.

The scales stay as they are, only integers change, so the model costs what it cost. How they are chosen is in
`edge_compression.quantization.layer_rounding`; TFLite models have a pass of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, ClassVar

from msgspec import Meta
from onnx import numpy_helper

from edge_compression.onnx_tools.graph import initializers, load, save, session, with_outputs
from edge_compression.pass_api import Applied, Context, Feeds, NothingToDoError
from edge_compression.quantization.layer_rounding import fits, rounded, seen_inputs
from edge_compression.quantization.quantized_layers import QUANTIZED, quantized_layers
from edge_compression.quantization.rounding import DAMPING
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format


class SecondOrderRounding(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="second_order_rounding"):
    """Round the weights of a quantized model anew. Must follow `static_int8` or `weight_only` and precede
    `bias_correction`. `damping`: share of the mean second moment added to each one."""

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = True
    refines: ClassVar[bool] = True

    damping: Annotated[float, Meta(gt=0.0, le=1.0)] = DAMPING

    def apply(self, model: bytes, context: Context) -> Applied:
        quantized = load(model)
        constants = initializers(quantized)
        layers = [layer for layer in quantized_layers(load(context.unquantized), quantized) if fits(layer)]
        if not layers:
            raise NothingToDoError("no quantized weights; this pass must follow static_int8 or weight_only")
        before = after = 0.0
        for seen in seen_inputs(layers, partial(activations, context)):
            found = rounded(seen, damping=self.damping)
            before, after = before + found.before, after + found.after
            if found.after < found.before:
                name = seen.layer.weight + QUANTIZED
                constants[name].CopyFrom(numpy_helper.from_array(found.integers, name))
        kept = after / before if before else 1.0
        return Applied(model=save(quantized), changed={"layers": len(layers), "squared_error_kept": kept})


def activations(context: Context, names: list[str]) -> Iterator[Feeds]:
    """Yield these tensors of the float model for each calibration sample."""
    model = load(context.unquantized)
    given = {info.name for info in model.graph.input}
    inner = [name for name in names if name not in given]
    opened = session(save(with_outputs(model, inner))) if inner else None
    for feeds in context.calibration():
        seen = dict(feeds)
        if opened is not None:
            seen.update(zip(inner, opened.run(inner, feeds), strict=True))
        yield seen
