"""How far two forms of one model are apart: the check of every pass that must not change what a model answers."""

from __future__ import annotations

from itertools import islice

import numpy as np

from edge_compression.onnx_tools.graph import run, session
from edge_compression.pass_api import Context

CHECKED_SAMPLES = 8


def largest_difference(before: bytes, after: bytes, context: Context) -> float:
    """Return the largest difference on the first calibration samples, relative to the range of each output; infinite
    when a shape changed, NaN when an answer is none."""
    old, new = session(before), session(after)
    worst = 0.0
    for feeds in islice(context.calibration(), CHECKED_SAMPLES):
        for expected, given in zip(run(old, feeds), run(new, feeds), strict=True):
            worst = float(np.maximum(worst, _difference(expected, given)))
    return worst


def _difference(expected: object, given: object) -> float:
    """Return how far two answers are apart. Equal ones are not, whatever they are: text, lists, infinite values."""
    if isinstance(expected, (list, tuple)) and isinstance(given, (list, tuple)):
        if len(expected) != len(given):
            return float("inf")
        return max((_difference(one, other) for one, other in zip(expected, given, strict=True)), default=0.0)
    left, right = np.asarray(expected), np.asarray(given)
    if left.shape != right.shape:
        return float("inf")
    if left.dtype.kind not in "biuf":
        return 0.0 if np.array_equal(left, right) else float("inf")
    before, after = left.astype(np.float64), right.astype(np.float64)
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    finite = before[np.isfinite(before)]
    span = float(np.ptp(finite)) if finite.size else 0.0
    gap = np.abs(before[~same] - after[~same])
    return float(gap.max(initial=0.0)) / (span or 1.0)
