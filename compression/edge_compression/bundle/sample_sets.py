"""The sample sets of a bundle and what is derived from them: golden and probe samples, floors, tolerances, thresholds.

Pure functions over arrays. Writing the files is in `bundle`; the device's side of each is in `edge_agent.trial` and
`edge_agent.inference.runtime`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_bench.stats import binomial_quantile, wilson_upper
from edge_compression.evaluation.quality import Exactness
from edge_compression.guards import OutputKind
from edge_contracts.limits import KIB, MIB
from edge_contracts.reference import Confidence

Array = NDArray[Any]

MIN_GOLDEN, MAX_GOLDEN = 1, 16

STEPS = 32
"""Steps of a sequence that a golden or probe sample has: a wrong state shows in the second."""

MIN_PROBES, MAX_PROBES = 4, 200
"""Labeled samples every device tries a release on: many tell a collapse from chance, few do so less well, which the
floor allows for."""

GOLDEN_BYTES, PROBE_BYTES = 512 * KIB, 2 * MIB
SETS_BYTES, SETS_SHARE = 512 * KIB, 0.25
"""What both sets may weigh as they are stored: at most the first two, and together at most a share of all variants
where that is more than `SETS_BYTES`. Every device fetches them, pictures and sound weigh more than the model else."""

PACKED_SAMPLES = 4
"""Samples that are packed to learn what one weighs."""

SUSPICIOUS_SHARE = 0.005
"""Share of calibration samples that a confidence threshold may call suspicious."""

FLOOR_CONFIDENCE = 0.99
FLOAT_TOLERANCE, HALF_TOLERANCE, INTEGER_TOLERANCE = 1e-3, 5e-3, 0.05
"""Least tolerances: float kernels differ in the order of sums, half precision by 2^-11 a step, 8-bit activations by a
quantization step here and there that later layers spread."""

MAX_TOLERANCE = 0.5
"""Beyond half of the output's range a golden sample proves nothing."""


def allowed_bytes(variants: int) -> int:
    """Return what the sets of a bundle may weigh, whose variants have so many bytes together."""
    return int(max(SETS_BYTES, SETS_SHARE * variants))


def packed_bytes(arrays: Iterable[Array]) -> float:
    """Return what one sample of all these arrays [N, ...] weighs as it is stored, by the first few."""
    return sum(
        len(zlib.compress(np.ascontiguousarray(array[:PACKED_SAMPLES]).tobytes())) / len(array[:PACKED_SAMPLES])
        for array in arrays
        if len(array)
    )


def golden_count(each: float, allowed: int) -> int:
    """Return how many golden samples a bundle carries, when one and all answers to it weigh so many bytes, and both
    sets may weigh `allowed`: a half of it is theirs at most."""
    return int(np.clip(min(GOLDEN_BYTES, allowed / 2) // max(1.0, each), MIN_GOLDEN, MAX_GOLDEN))


def probe_count(each: float, allowed: float) -> int:
    """Return how many probe samples a bundle carries, when one weighs so many bytes and all may weigh `allowed`."""
    return int(np.clip(min(PROBE_BYTES, allowed) // max(1.0, each), MIN_PROBES, MAX_PROBES))


def stratified(y: Array, wanted: int, *, by_class: bool) -> NDArray[np.intp]:
    """Return at most `wanted` sample indices, sorted: the same share of every class, or evenly spaced."""
    if y.shape[0] <= wanted:
        return np.arange(y.shape[0])
    if not by_class:
        return np.linspace(0, y.shape[0] - 1, wanted).astype(np.intp)
    # Sorting by class and taking even steps gives each class its share, and rare classes one at least in turn.
    order = np.argsort(y.reshape(y.shape[0], -1)[:, 0], kind="stable")
    return np.sort(order[np.linspace(0, y.shape[0] - 1, wanted).astype(np.intp)])


def output_kind(answers: Array, metric: str) -> OutputKind:
    """Return what a first output's numbers are, judged by the numbers."""
    if metric != "top1":
        return "values"
    rows = answers.reshape(-1, answers.shape[-1]).astype(np.float64)
    if rows.min() >= -1e-6 and np.allclose(rows.sum(axis=-1), 1.0, atol=1e-2):
        return "probabilities"
    return "logits"


def confidence(answers: Array, kind: OutputKind) -> Confidence:
    """Return the thresholds that `SUSPICIOUS_SHARE` of the calibration samples' answers are beyond."""
    if kind == "values":
        return Confidence()
    rows = answers.reshape(-1, answers.shape[-1]).astype(np.float64)
    if kind == "probabilities":
        return Confidence(max_softmax=float(np.quantile(rows.max(axis=-1), SUSPICIOUS_SHARE)))
    top = rows.max(axis=-1, keepdims=True)
    total = np.exp(rows - top).sum(axis=-1)
    energy = -(top[:, 0] + np.log(total))
    return Confidence(
        energy=float(np.quantile(energy, 1.0 - SUSPICIOUS_SHARE)),
        max_softmax=float(np.quantile(1.0 / total, SUSPICIOUS_SHARE)),
    )


def score_floor(metric: str, probe_score: float, probes: int, exactness: Exactness, *, least: float = 0.0) -> float:
    """Return the least score on the probe set that a device's own kernels can explain.

    For top1: answers flip where kernels round differently. Their share is bounded from the comparison of optimized
    and exact arithmetic here (99 %, Wilson); the floor is the probe score less the 99 % quantile of so many flips, all
    taken to be for the worse. For errors: a tenth more error, at least what other kernels add to the
    answers, `least`: a model without any error here need not be without any there.
    """
    if metric != "top1":
        return float(probe_score - max(0.1 * abs(probe_score), least, np.finfo(np.float64).tiny))
    share = wilson_upper(exactness.differing, exactness.samples, confidence=FLOOR_CONFIDENCE)
    return max(0.0, probe_score - binomial_quantile(FLOOR_CONFIDENCE, probes, share) / probes)


def output_floor(error: float, least: float) -> float:
    """Return how far from the original's answers a variant's may be on another CPU: twice as far as here, at least what
    its kind of arithmetic does by itself."""
    return float(max(2.0 * error, error + least))


def tolerance(exactness: Exactness, *, least: float) -> float:
    """Return the largest difference from golden outputs that other kernels can explain: twice the largest seen
    between optimized and exact arithmetic here."""
    seen = exactness.largest_difference
    return MAX_TOLERANCE if seen is None else min(MAX_TOLERANCE, max(least, 2.0 * seen))
