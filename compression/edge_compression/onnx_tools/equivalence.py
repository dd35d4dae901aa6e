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
            if expected.shape != given.shape:
                return float("inf")
            span = float(np.ptp(expected)) or 1.0
            gap = np.abs(np.asarray(expected, np.float64) - np.asarray(given, np.float64))
            worst = float(np.maximum(worst, gap.max(initial=0.0) / span))
    return worst
