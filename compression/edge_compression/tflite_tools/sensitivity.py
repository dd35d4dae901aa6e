"""Which layers of a TFLite model must stay in float so that 8-bit weights keep every output.

A layer's noise is measured by giving it alone its dequantized weights; that the noises of several add up is an
assumption, as in `sensitivity`, whose numbers are those of ONNX. Every output counts, each against its own signal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_compression.pass_api import Context
from edge_compression.quantization.sensitivity import power_ratio
from edge_compression.tflite_tools.graph import load, outputs, replace, save
from edge_compression.tflite_tools.layers import TfliteLayer

Array = NDArray[Any]

SAMPLES = 12
"""Calibration samples each layer is tried on: as many runs of the model for each of its layers."""


@dataclass(frozen=True, kw_only=True)
class LayerNoise:
    """A layer by the index of its weights, the bytes that 8 bits save, and its noise as a share of what each output is
    allowed."""

    weight: str
    size: int
    shares: Array


def layer_noises(model: bytes, layers: Sequence[TfliteLayer], context: Context, *, sqnr: float) -> list[LayerNoise]:
    """Return the noise of each layer's rounding, relative to what leaves every output `sqnr` decibels."""
    truth = _answers(model, context)
    allowed = [max(_power(one - one.mean()), 1e-30) / power_ratio(sqnr) for one in truth]
    found = []
    for layer in layers:
        changed = load(model)
        tensor = changed.subgraphs[0].tensors[int(layer.weight)]
        # In the file's own order of axes, which `stored` gives integers back.
        replace(changed, tensor, layer.stored(layer.dequantized).astype(np.float32))
        answers = _answers(save(changed), context)
        noise = [_power(given - right) / most for given, right, most in zip(answers, truth, allowed, strict=True)]
        found.append(LayerNoise(weight=layer.weight, size=layer.values.size, shares=np.array(noise)))
    return found


def kept_in_float(noises: Sequence[LayerNoise]) -> tuple[str, ...]:
    """Return the layers to leave, those first that free most for their bytes, until no output has more noise than is
    allowed."""
    left = list(noises)
    chosen: list[str] = []
    while left:
        total = np.sum([one.shares for one in left], axis=0)
        over = total > 1.0
        if not over.any():
            break
        worst = max(left, key=lambda one: float((one.shares[over] / total[over]).max()) / one.size)
        chosen.append(worst.weight)
        left.remove(worst)
    return tuple(chosen)


def _answers(model: bytes, context: Context) -> list[Array]:
    """Return each output for the first calibration samples, one after another."""
    rows: Iterator[list[Array]] = outputs(model, islice(context.calibration(), SAMPLES))
    return [np.stack(column).astype(np.float64) for column in zip(*rows, strict=True)]


def _power(values: Array) -> float:
    return float(np.mean(np.square(values)))
