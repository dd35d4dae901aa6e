"""Mixed precision of stored weights: four bits where the answers hardly notice, eight elsewhere.

How loud each weight's rounding is, is measured in `edge_compression.quantization.sensitivity`; how weights are stored
is that of `weight_only`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from edge_compression.onnx_tools.graph import SCALES_ALONG_AXES, load, save, upgraded
from edge_compression.pass_api import SAME_BELOW, SAME_FROM, SAME_VALUE, Applied, Changes, Context
from edge_compression.passes.weight_only import storable, store
from edge_compression.quantization.sensitivity import (
    Saving,
    affordable,
    decibels,
    output_noise,
    power_ratio,
    same_choice,
)
from edge_compression.quantization.weights import LARGEST, along, rounded
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format

MOST_DB, ROUNDING_DB = 60.0, 1e-6


class MixedWeights(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="mixed_weights"):
    """Store as many weights in four bits as keep the answers' signal-to-noise ratio, summed over all of them, above
    `sqnr` decibels with nearest rounding; the others in eight. `second_order_rounding` after it makes the ratio better,
    `unpack_at_load` saves the bytes. `operators` as in `weight_only`. Where four bits are too few for every one, all
    have eight; so has one that no calibration sample reaches, in a branch not taken: nobody knows how loud it is."""

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = True

    sqnr: Annotated[float, Meta(gt=0.0, le=MOST_DB)] = 20.0
    operators: tuple[str, ...] = ()

    def apply(self, model: bytes, context: Context) -> Applied:
        graph = upgraded(load(model), SCALES_ALONG_AXES)
        weights = storable(graph, self.operators)
        trials = []
        for weight in weights:
            integers, scale = rounded(weight.values, weight.axis, largest=LARGEST[4], per_channel=True)
            trials.append((weight.name, integers * along(scale, weight.axis, integers.ndim)))
        signal, noises = output_noise(graph, trials, context)
        savings = [
            Saving(name=weight.name, size=weight.values.size // 2, noise=noise)
            for weight, noise in zip(weights, noises, strict=True)
        ]
        heard = [
            one
            for one, weight, (_, values) in zip(savings, weights, trials, strict=True)
            if one.noise > 0.0 or np.array_equal(weight.values, values)
        ]
        chosen = affordable(heard, signal / power_ratio(self.sqnr))
        for weight in weights:
            store(graph, weight, bits=4 if weight.name in chosen else 8, per_channel=True)
        quietest, loudest = same_choice(heard, signal / power_ratio(self.sqnr))
        changed: Changes = {
            SAME_VALUE: "sqnr",
            SAME_FROM: decibels(signal / loudest) + ROUNDING_DB if loudest < np.inf else 0.0,
            SAME_BELOW: decibels(signal / quietest) - ROUNDING_DB if quietest > 0.0 else MOST_DB + 1.0,
            "weights_in_four_bits": len(chosen),
            "weights_in_eight_bits": len(weights) - len(chosen),
        }
        if chosen:
            expected = sum(one.noise for one in savings if one.name in chosen)
            changed["expected_sqnr_db"] = round(decibels(signal / max(expected, 1e-300)), 2)
        return Applied(model=save(graph), changed=changed)
