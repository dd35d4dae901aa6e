"""How a variant's scores become the original's: quantization may keep the order of all detections and halve their
confidences, and then a threshold that somebody chose for the original finds half of them.

Pure. Carrying a map out is in `edge_agent.processing.postprocess`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contracts.manifest import ScoreMap

Array = NDArray[Any]

KNOTS = 24
"""Points of one map: a quantized sigmoid is bent in a few places."""

LEAST_SHIFT = 0.005
"""Share of the original's range by which scores differ somewhere, below which no map is worth its points."""


def score_map(name: str, own: Array, original: Array) -> ScoreMap | None:
    """Return the map from a variant's scores to the original's for the same samples; None where both are alike.

    Scores of equal rank are matched, so that as many lie above any threshold as of the original's (histogram
    specification; R. Gonzalez and R. Woods, Digital Image Processing). The points are evenly spaced over the original's
    range, not over its ranks: nearly all scores of a detector are those of nothing.
    """
    a, b = np.sort(own.astype(np.float64), axis=None), np.sort(original.astype(np.float64), axis=None)
    if a.size != b.size or not b.size or not np.isfinite(a).all() or not np.isfinite(b).all():
        return None
    spread = float(b[-1] - b[0])
    if spread <= 0.0 or a[-1] <= a[0]:
        return None
    ranks = np.unique(np.searchsorted(b, np.linspace(b[0], b[-1], KNOTS)).clip(0, b.size - 1))
    pairs = _rising(a[ranks], b[ranks], 1e-6 * spread)
    if len(pairs) < 2 or max(abs(x - y) for x, y in pairs) < LEAST_SHIFT * spread:
        return None
    return ScoreMap(of=name, own=tuple(x for x, _ in pairs), original=tuple(y for _, y in pairs))


def _rising(own: Array, original: Array, step: float) -> list[tuple[float, float]]:
    """Return the pairs of which both numbers rise; the last, of the surest, is kept."""
    kept: list[tuple[float, float]] = []
    for x, y in zip(own.tolist(), original.tolist(), strict=True):
        if not kept or (x > kept[-1][0] + step and y > kept[-1][1] + step):
            kept.append((x, y))
    last = (float(own[-1]), float(original[-1]))
    if kept[-1] != last:
        while kept and (kept[-1][0] >= last[0] or kept[-1][1] >= last[1]):
            kept.pop()
        kept.append(last)
    return kept
