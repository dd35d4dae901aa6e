"""The integers of quantized layers chosen anew, by what their inputs were over the calibration samples.

Here: summing the inputs as they stream, in bounded memory, and rounding one layer. The arithmetic is in `rounding` and
`moments`; reading layers out of a model and writing them back is the passes' business, one for each format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_compression.quantization.input_moments import add_moments, as_rows, from_rows, supported
from edge_compression.quantization.quantized_layers import QuantizedLayer
from edge_compression.quantization.rounding import compensated, output_error
from edge_contracts.limits import MIB

Array = NDArray[Any]
Activations = Callable[[list[str]], Iterator[Mapping[str, Array]]]
"""Yields, for each calibration sample, the activations of these names in the float model."""

MOMENTS_BYTES = 256 * MIB
"""Of second moments summed in one round over the samples; what does not fit is summed in another round."""

MAX_COLUMNS = 4608
"""Inputs of one output, those of a 3 x 3 convolution of 512 channels; beyond it a matrix is inverted for minutes."""

LIMITS = (7, 64, 127)
"""Largest magnitudes of symmetric weights of 4, 7 and 8 bits. Scales come from the largest weight, so one of them is
always taken."""


@dataclass(kw_only=True)
class Seen:
    """A layer and its inputs, summed over samples and positions: outer products [groups, columns, columns] and the
    inputs themselves [groups, columns]."""

    layer: QuantizedLayer
    moments: Array
    sums: Array
    positions: int = 0

    def add(self, values: Array) -> None:
        """Add what the layer sees of one activation."""
        taken = self.layer.inputs(values)
        add_moments(self.moments, taken)
        self.sums += taken.sum(axis=1)
        self.positions += taken.shape[1]

    def mean_error(self, integers: Array) -> Array:
        """Return how far each output channel is off on average with these integers, without any change of bias."""
        error = as_rows(self.layer.node, self.layer.worth(integers) - self.layer.values)
        return np.asarray(np.einsum("grc,gc->gr", error, self.sums / max(1, self.positions)).reshape(-1))


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """A layer's integers, in the shape of its weights, and the squared error of its outputs `before` and with them."""

    integers: Array
    before: float
    after: float


def fits(layer: QuantizedLayer) -> bool:
    """Return whether a layer can be rounded anew."""
    symmetric = not np.any(layer.zero_point)
    return (
        symmetric and supported(layer.node, layer.values) and as_rows(layer.node, layer.values).shape[2] <= MAX_COLUMNS
    )


def seen_inputs(layers: list[QuantizedLayer], activations: Activations) -> Iterator[Seen]:
    """Yield each layer with its inputs in the float model, as many layers a round as `MOMENTS_BYTES` allow."""
    for batch in _batches(layers):
        names = sorted({one.layer.node.input[0] for one in batch})
        for values in activations(names):
            for one in batch:
                one.add(values[one.layer.node.input[0]])
        yield from batch


def _batches(layers: list[QuantizedLayer]) -> Iterator[list[Seen]]:
    batch: list[Seen] = []
    for layer in layers:
        groups, _, columns = as_rows(layer.node, layer.values).shape
        fresh = Seen(layer=layer, moments=np.zeros((groups, columns, columns)), sums=np.zeros((groups, columns)))
        if batch and sum(one.moments.nbytes for one in batch) + fresh.moments.nbytes > MOMENTS_BYTES:
            yield batch
            batch = []
        batch.append(fresh)
    if batch:
        yield batch


def rounded(seen: Seen, *, damping: float) -> Rounded:
    """Return the integers whose errors cancel in the layer's outputs, or those it has where they do better."""
    layer = seen.layer
    rows = as_rows(layer.node, layer.values.astype(np.float64))
    steps = as_rows(layer.node, np.broadcast_to(layer.scale, layer.values.shape))[:, :, 0]
    taken = int(np.abs(layer.integers.astype(np.int64)).max())
    limit = next(limit for limit in LIMITS if taken <= limit)
    integers = compensated(rows, seen.moments, scale=steps, limit=limit, damping=damping)
    nearest = output_error(as_rows(layer.node, layer.dequantized) - rows, seen.moments)
    chosen = output_error(integers * steps[:, :, None] - rows, seen.moments)
    if chosen >= nearest:
        return Rounded(integers=layer.integers, before=nearest, after=nearest)
    found = from_rows(layer.node, integers, layer.integers.shape).astype(layer.integers.dtype)
    return Rounded(integers=found, before=nearest, after=chosen)
