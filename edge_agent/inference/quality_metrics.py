"""Quality: the metrics a task may name and the comparison of answers with golden ones. Pure functions over arrays.

Every metric is "higher is better", so that floors and drops mean the same for all: errors are negated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge_agent.ports import Array
from edge_contracts.errors import OperatorError

_TINY = 1e-12

OFFSET_SHARE = 0.2
"""What an error relative to the spread of the answers counts for, against one relative to their size."""


def top1(outputs: Array, targets: Array) -> float:
    """Share of samples whose largest output along the last axis is the target class, 0 to 1.

    `outputs` [N, ..., C], `targets` [N, ...] class indices. A NaN anywhere in a sample's outputs makes it wrong.
    """
    if outputs.ndim < 2 or outputs.shape[-1] < 2:
        raise OperatorError(f"top1 needs one number per class, the output is {outputs.shape}", subject="metric")
    right = classes(outputs) == targets.reshape(outputs.shape[:-1])
    return float(np.mean(right & ~np.isnan(outputs).any(axis=-1)))


def mae(outputs: Array, targets: Array) -> float:
    """Negated mean absolute error, so that higher is better."""
    return -float(np.mean(np.abs(_difference(outputs, targets))))


def rmse(outputs: Array, targets: Array) -> float:
    """Negated root of the mean squared error, so that higher is better."""
    return -float(np.sqrt(np.mean(np.square(_difference(outputs, targets)))))


METRICS: dict[str, Callable[[Array, Array], float]] = {"top1": top1, "mae": mae, "rmse": rmse}


def score(metric: str, outputs: Sequence[Array], targets: Array) -> float:
    """Return the metric of a model's first output against the targets; higher is better for every metric.

    Raises OperatorError for a metric that is not known or does not fit the output's shape.
    """
    if metric not in METRICS:
        raise OperatorError(
            f"{metric[:80]!r} is unknown", subject="metric", hint=f"one of: {', '.join(sorted(METRICS))}"
        )
    return METRICS[metric](outputs[0], targets)


def classes(outputs: Array) -> Array:
    """Return the index of the largest output along the last axis."""
    result: Array = np.argmax(outputs, axis=-1)
    return result


def agreement(outputs: Array, reference: Array) -> float:
    """Share of samples for which both answer the same class, 0 to 1."""
    return float(np.mean(classes(outputs) == classes(reference)))


def golden_error(outputs: Sequence[Array], golden: Sequence[Array]) -> float:
    """Return the largest difference from the golden outputs, relative to their range: max|a-b| / (max b - min b).

    The worst of all outputs. Infinite when a shape differs or a finite golden number is answered by NaN or infinity.
    An output that is constant in the golden set is compared with its own magnitude.
    """
    if len(outputs) != len(golden):
        return float("inf")
    return max((_relative(a, b) for a, b in zip(outputs, golden, strict=True)), default=0.0)


def _relative(outputs: Array, golden: Array) -> float:
    if outputs.shape != golden.shape:
        return float("inf")
    if not outputs.size:
        return 0.0
    a: np.ndarray[Any, np.dtype[np.float64]] = outputs.astype(np.float64)
    b: np.ndarray[Any, np.dtype[np.float64]] = golden.astype(np.float64)
    known = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), known):
        return float("inf")
    if not known.any():
        return 0.0
    a, b = a[known], b[known]
    spread = float(b.max() - b.min()) or float(np.abs(b).max())
    return float(np.abs(a - b).max()) / max(spread, _TINY)


def relative_error(outputs: Array, reference: Array) -> float:
    """Return how far answers are from a reference's: the root of the mean squared difference over that of the
    reference; for what is no real number the share of elements that differ.

    An offset is no signal: where the reference's numbers lie far from zero and close together, a fifth of the error
    over their spread counts if it is more. Infinite when shapes differ, or a finite number is answered by none.
    """
    if outputs.shape != reference.shape:
        return float("inf")
    if not outputs.size:
        return 0.0
    if reference.dtype.kind != "f":
        return float(np.mean(outputs != reference))
    a: np.ndarray[Any, np.dtype[np.float64]] = outputs.astype(np.float64)
    b: np.ndarray[Any, np.dtype[np.float64]] = reference.astype(np.float64)
    known = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), known):
        return float("inf")
    if not known.any():
        return 0.0
    a, b = a[known], b[known]
    noise = float(np.sqrt(np.mean(np.square(a - b))))
    power, spread = float(np.sqrt(np.mean(np.square(b)))), float(np.std(b))
    return max(noise / max(power, _TINY), OFFSET_SHARE * noise / spread if spread > _TINY else 0.0)


def decibels(error: float) -> float:
    """Return a relative error as a signal-to-noise ratio in decibels, 200 at most."""
    return min(200.0, -20.0 * math.log10(max(error, 1e-10))) if math.isfinite(error) else -math.inf


def _difference(outputs: Array, targets: Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    if outputs.size != targets.size:
        raise OperatorError(f"outputs {outputs.shape} against targets {targets.shape}", subject="metric")
    return outputs.astype(np.float64).reshape(-1) - targets.astype(np.float64).reshape(-1)
