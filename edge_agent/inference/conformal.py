"""Split-conformal sets: which answers a variant cannot rule out, with known coverage; and when to abstain for it.

The scores are defined here for both sides: `edge_compression.bundle.conformal` calibrates thresholds with them where a
bundle is made, the runtime applies them to each answer. `docs/bundle-statistics.md` says what they promise.

Sources: V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2005; LAC: M. Sadinle, J. Lei,
L. Wasserman, JASA 114, 2019; RAPS: A. Angelopoulos et al., ICLR 2021, arXiv:2009.14193, without randomization.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.answer import Prediction
from edge_agent.inference.rungs.quick_confidence import MARGIN, MAX_CLASSES
from edge_agent.processing.activations import Floats, softmax
from edge_contracts.errors import ContractError
from edge_contracts.manifest import Manifest, Output, Variant
from edge_contracts.reference import ConformalThreshold

Array = NDArray[Any]


class Predictor:
    """Applies one variant's threshold to its answers' first output."""

    def __init__(self, threshold: ConformalThreshold, output: Output) -> None:
        self._threshold = threshold
        self._output = output.name
        self._logits = output.kind == "logits"

    def predict(self, outputs: Mapping[str, Array]) -> Prediction:
        """Return the prediction for a batch of answers: [N, ..., C] logits or probabilities, or values."""
        threshold, output = self._threshold, outputs[self._output]
        coverage = 1.0 - threshold.alpha
        if threshold.score == "absolute_residual":
            return Prediction(coverage=coverage, width=threshold.tau)
        if (one := self._set_of_one(output)) is not None:
            return Prediction(coverage=coverage, sets=(one,))
        rows = output.reshape(-1, output.shape[-1]).astype(np.float64)
        inside = members(softmax(rows) if self._logits else rows, threshold)
        return Prediction(coverage=coverage, sets=tuple(tuple(map(int, np.flatnonzero(row))) for row in inside))

    def _set_of_one(self, output: Array) -> tuple[int, ...] | None:
        """Return the set of a lone sample of few classes by LAC, on Python's own numbers, which is quicker; None for
        others, and where the last bits decide."""
        if self._threshold.score != "lac" or output.size != output.shape[-1] or output.size > MAX_CLASSES:
            return None
        row = output.reshape(-1).tolist()
        if self._logits:
            top = max(row)
            powers = [math.exp(value - top) for value in row]
            total = sum(powers)
            row = [power / total for power in powers]
        best, least = row.index(max(row)), 1.0 - self._threshold.tau
        if any(abs(value - least) < MARGIN for value in row):
            return None
        return tuple([index for index, value in enumerate(row) if value > least or index == best])


def predictor(manifest: Manifest, variant: Variant, coverage: float) -> Predictor | None:
    """Return what predicts with at least `coverage`, from the variant's own thresholds; LAC, whose sets are smallest,
    before RAPS. None when it has none that covers enough.

    Raises ContractError for a threshold that is of another file: calibrated on one variant, it says nothing of another.
    """
    sha256 = manifest.file(variant.file).sha256
    enough = [threshold for threshold in variant.conformal if 1.0 - threshold.alpha >= coverage - 1e-9]
    if not enough:
        return None
    best = max(enough, key=lambda threshold: (threshold.alpha, threshold.score == "lac"))
    if best.model_sha256 != sha256:
        raise ContractError("its conformal threshold was computed for another file", subject=f"variant {variant.id}")
    return Predictor(best, manifest.outputs[0])


def members(probabilities: Floats, threshold: ConformalThreshold) -> NDArray[np.bool_]:
    """Return which classes are in each sample's set [N, C]. The likeliest always is: an empty set would claim that
    no class is possible, and adding one only raises the coverage."""
    if threshold.score == "lac":
        scores = lac(probabilities)
    else:
        scores = raps(probabilities, penalty=threshold.penalty, free_ranks=threshold.free_ranks)
    inside = scores <= threshold.tau
    inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
    return inside


def lac(probabilities: Floats) -> Floats:
    """Return each class's score [N, C]: one minus its probability."""
    return 1.0 - probabilities


def raps(probabilities: Floats, *, penalty: float, free_ranks: int) -> Floats:
    """Return each class's score [N, C]: the sum of the probabilities of all classes at least as likely, itself
    included, and `penalty` for each rank beyond `free_ranks`."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    mass = np.cumsum(np.take_along_axis(probabilities, order, axis=1), axis=1)
    own = np.take_along_axis(mass, rank, axis=1)
    return np.asarray(own + penalty * np.maximum(0, rank + 1 - free_ranks))


def threshold_of(scores: Floats, alpha: float) -> float | None:
    """Return the ceil((n + 1)(1 - alpha))-th smallest of n scores of the truth; None when n is too small for it."""
    rank = math.ceil((scores.size + 1) * (1.0 - alpha))
    return float(np.sort(scores)[rank - 1]) if 0 < rank <= scores.size else None
