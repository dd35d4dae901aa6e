"""Second-order rounding: the integers of quantised weights chosen so that their errors cancel in each layer's output.

The scales stay as they are, only integers change, so the model costs what it cost. How they are chosen is in
`edge_compression.rounding`, how the layers' inputs are summed in `edge_compression.moments`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta
from onnx import numpy_helper

from edge_compression.contract import Applied, Context, PassError
from edge_compression.moments import add_moments, as_rows, from_rows, inputs, supported
from edge_compression.onnx_graph import initializers, load, save, session, with_outputs
from edge_compression.quantised import QUANTISED, Layer, quantised_layers
from edge_compression.rounding import DAMPING, compensated, output_error
from edge_contracts.codec import StrictRecord
from edge_contracts.limits import MIB
from edge_contracts.manifest import Format

MOMENTS_BYTES = 256 * MIB
"""Of second moments summed in one round over the samples; what does not fit is summed in another round."""

MAX_COLUMNS = 4608
"""Inputs of one output, those of a 3 x 3 convolution of 512 channels; beyond it a matrix is inverted for minutes."""

LIMITS = (7, 64, 127)
"""Largest magnitudes of symmetric weights of 4, 7 and 8 bits. Scales come from the largest weight, so one of them is
always taken."""


class SecondOrderRounding(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="second_order_rounding"):
    """Round the weights of a quantised model anew. Must follow `static_int8` or `weight_only` and precede
    `bias_correction`. `damping`: share of the mean second moment added to each one."""

    format: ClassVar[Format] = "onnx"
    quantises: ClassVar[bool] = True

    damping: Annotated[float, Meta(gt=0.0, le=1.0)] = DAMPING

    def apply(self, model: bytes, context: Context) -> Applied:
        quantised = load(model)
        constants = initializers(quantised)
        layers = [layer for layer in quantised_layers(load(context.unquantised), quantised) if _fits(layer)]
        if not layers:
            raise PassError("no quantised weights; this pass must follow static_int8 or weight_only")
        before = after = 0.0
        for layer, moments in second_moments(layers, context):
            rows = as_rows(layer.node, layer.values.astype(np.float64))
            steps = as_rows(layer.node, np.broadcast_to(layer.scale, layer.values.shape))[:, :, 0]
            taken = int(np.abs(layer.integers.astype(np.int64)).max())
            limit = next(limit for limit in LIMITS if taken <= limit)
            integers = compensated(rows, moments, scale=steps, limit=limit, damping=self.damping)
            nearest = output_error(as_rows(layer.node, layer.dequantised) - rows, moments)
            chosen = output_error(integers * steps[:, :, None] - rows, moments)
            before, after = before + nearest, after + min(nearest, chosen)
            if chosen < nearest:
                found = from_rows(layer.node, integers, layer.integers.shape).astype(layer.integers.dtype)
                name = layer.weight + QUANTISED
                constants[name].CopyFrom(numpy_helper.from_array(found, name))
        kept = after / before if before else 1.0
        return Applied(model=save(quantised), changed={"layers": len(layers), "squared_error_kept": kept})


def _fits(layer: Layer) -> bool:
    symmetric = not np.any(layer.zero_point)
    return (
        symmetric and supported(layer.node, layer.values) and as_rows(layer.node, layer.values).shape[2] <= MAX_COLUMNS
    )


def second_moments(layers: list[Layer], context: Context) -> Iterator[tuple[Layer, Any]]:
    """Yield each layer with the second moments of its inputs in the float model, [groups, columns, columns]."""
    model = load(context.unquantised)
    given = {info.name for info in model.graph.input}
    for batch in _batches(layers):
        names = sorted({layer.node.input[0] for layer, _ in batch})
        inner = [name for name in names if name not in given]
        opened = session(save(with_outputs(model, inner))) if inner else None
        for feeds in context.calibration():
            seen = dict(feeds)
            if opened is not None:
                seen.update(zip(inner, opened.run(inner, feeds), strict=True))
            for layer, total in batch:
                add_moments(total, inputs(layer.node, layer.values, seen[layer.node.input[0]]))
        yield from batch


def _batches(layers: list[Layer]) -> Iterator[list[tuple[Layer, Any]]]:
    """Yield the layers with sums of zero, as many at a time as `MOMENTS_BYTES` allow, one at least."""
    batch: list[tuple[Layer, Any]] = []
    for layer in layers:
        groups, _, columns = as_rows(layer.node, layer.values).shape
        total = np.zeros((groups, columns, columns))
        if batch and sum(one.nbytes for _, one in batch) + total.nbytes > MOMENTS_BYTES:
            yield batch
            batch = []
        batch.append((layer, total))
    if batch:
        yield batch
