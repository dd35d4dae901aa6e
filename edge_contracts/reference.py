"""What a release was like where it was made: thresholds of each variant and histograms to compare a device's
windows with. Records and their checks only; how they are made is in `edge_compression.bundle.conformal` and
`edge_compression.bundle.histograms`, the definitions are in `docs/bundle-statistics.md`.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal

from msgspec import Meta

from edge_contracts import limits
from edge_contracts.codec import Record
from edge_contracts.errors import ContractError
from edge_contracts.names import Sha256, Text

Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Statistic = Literal["mean", "std", "minimum", "maximum", "element"]

MAX_EDGES = 63
"""Borders of one histogram: finer ones only make windows noisier."""

MAX_FEATURES = 128
"""Histograms of inputs in one manifest."""


class Confidence(Record, frozen=True, kw_only=True):
    """Out-of-distribution thresholds of one variant, quantiles of its own calibration scores.

    `energy`: -logsumexp of the logits, above is suspicious (Liu et al. 2020, arXiv:2010.03759).
    `max_softmax`: largest class probability, below is suspicious (Hendrycks and Gimpel 2017, arXiv:1610.02136).
    """

    energy: float | None = None
    max_softmax: float | None = None


class ConformalThreshold(Record, frozen=True, kw_only=True):
    """Split-conformal threshold of one variant (Vovk et al. 2005): the set of answers whose score is at most `tau`
    holds the truth with probability at least 1 - `alpha`, whatever the model. `samples` calibrated it; on `checked`
    other ones the set held the truth in the share `coverage` and had `set_size` answers on average (for a residual:
    the width of the interval). `penalty` and `free_ranks` are RAPS's lambda and k_reg; a penalty of 0 is APS."""

    score: Literal["lac", "raps", "absolute_residual"]
    alpha: Annotated[float, Meta(gt=0.0, lt=1.0)]
    tau: float
    samples: Count
    model_sha256: Sha256
    penalty: Annotated[float, Meta(ge=0.0)] = 0.0
    free_ranks: Count = 0
    checked: Count = 0
    coverage: Share | None = None
    set_size: float | None = None


class Histogram(Record, frozen=True, kw_only=True):
    """Counts between borders: `counts[0]` below `edges[0]`, `counts[i]` from `edges[i-1]` on and below `edges[i]`, the
    last from the last border on. Histograms with the same borders are merged by adding."""

    edges: Annotated[tuple[float, ...], Meta(min_length=1, max_length=MAX_EDGES)]
    counts: Annotated[tuple[Count, ...], Meta(min_length=2, max_length=MAX_EDGES + 1)]


class Feature(Record, frozen=True, kw_only=True):
    """One number of each sample as the model is fed it, and its histogram: a statistic over the whole tensor, or the
    one element at `index` of the flattened sample."""

    input: Text
    statistic: Statistic
    index: Count | None = None
    histogram: Histogram


class InputReference(Record, frozen=True, kw_only=True):
    """What the inputs looked like: `samples` evaluation samples, as the model is fed them."""

    samples: Annotated[int, Meta(ge=1)]
    features: Annotated[tuple[Feature, ...], Meta(max_length=MAX_FEATURES)] = ()


class AnswerReference(Record, frozen=True, kw_only=True):
    """What one variant, the file `model_sha256`, answered to the same samples: the largest class probability and how
    often each class was answered, or for other outputs the first output's mean."""

    model_sha256: Sha256
    samples: Annotated[int, Meta(ge=1)]
    confidence: Histogram | None = None
    classes: Annotated[tuple[Count, ...], Meta(max_length=limits.MAX_LABELS)] = ()
    value: Histogram | None = None


def check_variant(
    thresholds: tuple[ConformalThreshold, ...], answers: AnswerReference | None, sha256: str, what: str
) -> None:
    """Check the statistics of one variant against the digest of its file. Raises ContractError."""
    for index, threshold in enumerate(thresholds):
        check_threshold(threshold, sha256, f"{what}.conformal[{index}]")
    if answers is not None:
        check_answers(answers, sha256, f"{what}.reference")


def check_threshold(threshold: ConformalThreshold, sha256: str, what: str) -> None:
    """Check a threshold against its variant's file. Raises ContractError."""
    _check_bound(threshold.model_sha256, sha256, what)
    if not math.isfinite(threshold.tau):
        raise ContractError("not a finite number", subject=f"{what}.tau")
    # One of n + 1 samples is the new one: with fewer calibration samples no finite threshold covers enough.
    if threshold.samples and math.ceil((threshold.samples + 1) * (1.0 - threshold.alpha)) > threshold.samples:
        raise ContractError(f"{threshold.samples} samples cannot prove it", subject=f"{what}.alpha")


def check_answers(answers: AnswerReference, sha256: str, what: str) -> None:
    """Check a variant's reference against its file. Raises ContractError."""
    _check_bound(answers.model_sha256, sha256, what)
    for name in ("confidence", "value"):
        histogram = getattr(answers, name)
        if histogram is not None:
            check_histogram(histogram, answers.samples, f"{what}.{name}")
    if answers.classes and sum(answers.classes) != answers.samples:
        raise ContractError(f"{sum(answers.classes)} answers of {answers.samples} samples", subject=f"{what}.classes")


def check_inputs(reference: InputReference, inputs: set[str], what: str) -> None:
    """Check the reference of the inputs against their names. Raises ContractError."""
    for index, feature in enumerate(reference.features):
        here = f"{what}.features[{index}]"
        if feature.input not in inputs:
            raise ContractError(f"no input {feature.input[:80]!r}", subject=f"{here}.input")
        if (feature.index is not None) != (feature.statistic == "element"):
            raise ContractError("an element has an index, a statistic has none", subject=f"{here}.index")
        check_histogram(feature.histogram, reference.samples, f"{here}.histogram")


def check_histogram(histogram: Histogram, samples: int, what: str) -> None:
    """Check borders, number of counts and their sum. Raises ContractError."""
    edges = histogram.edges
    if not all(map(math.isfinite, edges)) or any(low >= high for low, high in pairwise(edges)):
        raise ContractError("borders must be finite and rise", subject=f"{what}.edges")
    if len(histogram.counts) != len(edges) + 1:
        raise ContractError(f"{len(histogram.counts)} counts for {len(edges)} borders", subject=f"{what}.counts")
    if sum(histogram.counts) != samples:
        raise ContractError(f"{sum(histogram.counts)} of {samples} samples", subject=f"{what}.counts")


def _check_bound(found: str, expected: str, what: str) -> None:
    if found != expected:
        raise ContractError("belongs to another file than its variant's", subject=f"{what}.model_sha256")
