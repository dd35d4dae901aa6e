"""How much each weight's rounding disturbs the answers: what mixed precision is decided by.

Noise is measured at the first output, one weight at a time. That the noises of several add up is an assumption; it
holds as long as each is small, and the search scores every result anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.helper import tensor_dtype_to_np_dtype

from edge_compression.onnx_tools.graph import save, session
from edge_compression.pass_api import Context

Array = NDArray[Any]
RUNS, FEWEST, MOST = 640, 8, 64
"""Runs of the model in all, shared by the weights, and the bounds of calibration samples each is tried on: few tell
loud from quiet, more make the sum repeatable."""


@dataclass(frozen=True, kw_only=True)
class Saving:
    """What storing a weight in fewer bits brings, in bytes, and costs, in squared error of the answers."""

    name: str
    size: int
    noise: float


def output_noise(
    graph: onnx.ModelProto, trials: Sequence[tuple[str, Array]], context: Context
) -> tuple[float, list[float]]:
    """Return the squared sum of the first output and, for each trial of (constant, other values), the summed squared
    change of it, over the first calibration samples."""
    copy = onnx.ModelProto.FromString(graph.SerializeToString())
    kinds: dict[str, np.dtype[Any]] = {}
    listed = {info.name for info in copy.graph.input}
    for name in dict.fromkeys(name for name, _ in trials):
        constant = next(tensor for tensor in copy.graph.initializer if tensor.name == name)
        kinds[name] = tensor_dtype_to_np_dtype(constant.data_type)
        if name not in listed:  # a constant that is an input as well is a default that a run may replace
            copy.graph.input.append(helper.make_tensor_value_info(name, constant.data_type, constant.dims))
    copy.ir_version = max(copy.ir_version, 4)
    opened = session(save(copy))
    output = [copy.graph.output[0].name]
    signal, noises = 0.0, [0.0] * len(trials)
    for feeds in islice(context.calibration(), min(MOST, max(FEWEST, RUNS // len(trials)))):
        truth = opened.run(output, feeds)[0].astype(np.float64)
        signal += float((truth**2).sum())
        for index, (name, values) in enumerate(trials):
            answer = opened.run(output, {**feeds, name: values.astype(kinds[name])})[0].astype(np.float64)
            noises[index] += float(((answer - truth) ** 2).sum())
    return signal, noises


def affordable(savings: Sequence[Saving], noise: float) -> frozenset[str]:
    """Return the names of the weights to shrink: most bytes for the least noise first, while all together stay within
    `noise`. One that is too loud is passed over, quieter ones after it are still taken."""
    chosen: set[str] = set()
    for one in sorted(savings, key=lambda one: one.noise / one.size):
        if one.noise <= noise:
            chosen.add(one.name)
            noise -= one.noise
    return frozenset(chosen)


def same_choice(savings: Sequence[Saving], noise: float) -> tuple[float, float]:
    """Return between which noises, the first included, `affordable` chooses what it chooses for `noise`."""
    chosen = affordable(savings, noise)
    spent, most = 0.0, float("inf")
    for one in sorted(savings, key=lambda one: one.noise / one.size):
        if one.name in chosen:
            spent += one.noise
        else:
            most = min(most, spent + one.noise)
    return spent, most


def decibels(ratio: float) -> float:
    """Return a ratio of powers in decibels."""
    return float(10 * np.log10(max(ratio, np.finfo(np.float64).tiny)))


def power_ratio(value: float) -> float:
    """Return the ratio of powers of a figure in decibels."""
    return float(10 ** (value / 10))
