"""How much each weight's rounding disturbs the answers: what mixed precision is decided by.

Noise is measured at every output, one weight at a time, and counts where it is largest beside the output's own signal:
a second head, or a state that is fed back, is ruined as easily as the first output. That the noises of several add up
is an assumption; it holds as long as each is small, and the search scores every result anyway.
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
from edge_compression.onnx_tools.precision import FLOATS
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
    change of it, over the first calibration samples. Where the change of another output is larger, each measured by
    its own squared sum, it stands for that."""
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
    outputs = _measured(graph)
    signals, noises = np.zeros(len(outputs)), np.zeros((len(trials), len(outputs)))
    for feeds in islice(context.calibration(), min(MOST, max(FEWEST, RUNS // len(trials)))):
        truth = opened.run(outputs, feeds)
        signals += [_squared(one) for one in truth]
        for index, (name, values) in enumerate(trials):
            answers = opened.run(outputs, {**feeds, name: values.astype(kinds[name])})
            noises[index] += [_change(given, right) for given, right in zip(answers, truth, strict=True)]
    heard = signals > 0.0
    if not heard[0]:
        return 0.0, [float(row[0]) for row in noises]
    shares = (noises[:, heard] / signals[heard]).max(axis=1)
    return float(signals[0]), [float(signals[0] * share) for share in shares]


def _measured(graph: onnx.ModelProto) -> list[str]:
    """Return the first output, whatever it is, and the others that are numbers with a fraction."""
    first, *others = graph.graph.output
    return [first.name, *(one.name for one in others if one.type.tensor_type.elem_type in FLOATS)]


def _squared(values: Array) -> float:
    wide = np.asarray(values, np.float64)
    return float(np.square(wide[np.isfinite(wide)]).sum())


def _change(given: Array, right: Array) -> float:
    """Return the squared change of an answer; one of another shape has changed altogether."""
    if given.shape != right.shape:
        return _squared(right)
    with np.errstate(invalid="ignore"):  # infinite numbers that stay as they are differ by NaN
        return _squared(np.asarray(given, np.float64) - np.asarray(right, np.float64))


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
