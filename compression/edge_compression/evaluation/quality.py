"""What a candidate's answers are worth: score, drop against the original on the same samples, agreement, hazards.

Pure: arrays in, records out. The answers come from `edge_bench.measure`, the statistics from `edge_bench.stats`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_agent.inference.quality_metrics import agreement, classes, golden_error, score
from edge_bench.stats import Interval, mcnemar_exact, wilson_upper
from edge_compression.evaluation.paired_statistics import Quantile, flips, resampled, resampled_roots, two_sided
from edge_compression.evaluation.pareto import exceeds
from edge_contracts.codec import StrictRecord

Array = NDArray[Any]
Verdict = Literal["within", "undecided", "over"]

DEFAULT_CONFIDENCE = 0.75
"""One-sided confidence with which a rung's loss is within the limit: odds of three to one
(docs/decisions/0014-search-and-its-truth.md)."""

STOP_CONFIDENCE = 0.99
"""One-sided confidence that a candidate loses more than allowed from which it is not evaluated further."""

HAZARD_CONFIDENCE = 0.99
"""Chance that the true share of differing answers is below the bound compared with `HAZARD_SHARE`."""

HAZARD_SHARE = 0.05
"""Share of answers that may differ between the optimized and the exact graph: rounding in another order moves a few
answers near a border; one in twenty is another computation."""


class Quality(StrictRecord, frozen=True, kw_only=True):
    """A candidate against the original on the same `samples`. `drop`, its 95 % interval and `bound`, what it loses at
    most with the confidence asked for, are in points (hundredths); `p_value` is McNemar's exact test (top1 only).

    `verdict`: "over" when more than the limit was lost, "within" when the bound is within the limit as well,
    "undecided" when only the bound is not. `surely_over`: even at `STOP_CONFIDENCE` more than the limit is lost.
    """

    samples: int
    score: float
    drop: float
    drop_interval: Interval
    bound: float
    verdict: Verdict
    surely_over: bool
    agreement: float | None
    p_value: float | None
    worst_slice: str | None = None
    worst_slice_drop: float | None = None

    @property
    def undecided(self) -> bool:
        """Whether the samples cannot decide the limit."""
        return self.verdict == "undecided"


class Exactness(StrictRecord, frozen=True, kw_only=True):
    """The same file with the engine's optimizations off, on the first `samples`: what a CPU whose kernels do not
    saturate would answer. `largest_difference` is relative to the range of the answers, None when there is no saying;
    `hazard` names the danger when the two differ beyond noise."""

    samples: int
    score_optimized: float
    score_exact: float
    differing: int
    largest_difference: float | None
    hazard: str | None


@dataclass(frozen=True, kw_only=True)
class QualityRequest:
    """What is asked of a candidate: whether it loses at most `limit` points of `metric`, with which confidence."""

    metric: str
    limit: float
    confidence: float = DEFAULT_CONFIDENCE


def compare(asked: QualityRequest, answers: Array, original: Array, y: Array, slices: Array | None = None) -> Quality:
    """Compare a candidate's answers with the original's to the same samples."""
    metric = asked.metric
    before, after = per_sample(metric, original, y), per_sample(metric, answers, y)
    quantile = _quantile(metric, before, after)
    top1 = metric == "top1"
    own = score(metric, [answers], y)
    drop, bound = 100.0 * (score(metric, [original], y) - own), 100.0 * quantile(asked.confidence)
    worst = _worst_slice(metric, answers, original, y, slices)
    gained = before - after
    return Quality(
        samples=int(y.shape[0]),
        score=own,
        drop=drop,
        drop_interval=two_sided(quantile),
        bound=bound,
        verdict="over" if exceeds(drop, asked.limit) else "undecided" if exceeds(bound, asked.limit) else "within",
        surely_over=exceeds(100.0 * quantile(1.0 - STOP_CONFIDENCE), asked.limit),
        agreement=agreement(answers, original) if top1 else None,
        p_value=mcnemar_exact(int((gained > 0).sum()), int((gained < 0).sum())) if top1 else None,
        worst_slice=worst[0] if worst else None,
        worst_slice_drop=worst[1] if worst else None,
    )


def refuted(asked: QualityRequest, answers: Array, original: Array, y: Array) -> bool:
    """Return whether samples that had no say in the choice speak against it: more is lost on them than allowed, with
    the confidence asked for."""
    quantile = _quantile(asked.metric, per_sample(asked.metric, original, y), per_sample(asked.metric, answers, y))
    return exceeds(100.0 * quantile(1.0 - asked.confidence), asked.limit)


def _quantile(metric: str, before: NDArray[np.float64], after: NDArray[np.float64]) -> Quantile:
    if metric == "rmse":
        return resampled_roots(-after, -before)
    return flips(before - after) or resampled(before - after)


def per_sample(metric: str, answers: Array, y: Array) -> NDArray[np.float64]:
    """Return each sample's contribution to the metric, higher is better; its mean is the metric for top1 and mae."""
    if metric == "top1":
        right = (classes(answers) == y.reshape(answers.shape[:-1])) & ~np.isnan(answers).any(axis=-1)
        return np.asarray(right.reshape(right.shape[0], -1).mean(axis=1), dtype=np.float64)
    errors = answers.astype(np.float64).reshape(y.shape[0], -1) - y.astype(np.float64).reshape(y.shape[0], -1)
    return np.asarray(-(np.square(errors) if metric == "rmse" else np.abs(errors)).mean(axis=1))


def _worst_slice(
    metric: str, answers: Array, original: Array, y: Array, slices: Array | None
) -> tuple[str, float] | None:
    if slices is None:
        return None
    drops = {
        str(group): 100.0
        * (
            score(metric, [original[slices == group]], y[slices == group])
            - score(metric, [answers[slices == group]], y[slices == group])
        )
        for group in np.unique(slices)
    }
    worst = max(drops, key=lambda group: drops[group])
    return worst, drops[worst]


def compare_exact(metric: str, optimized: Array, exact: Array, y: Array) -> Exactness:
    """Compare the optimized graph's answers with the exact graph's on the samples the exact one was run on."""
    count = exact.shape[0]
    differing = _differing(metric, optimized[:count], exact)
    largest = golden_error([optimized[:count]], [exact])
    return Exactness(
        samples=count,
        score_optimized=score(metric, [optimized[:count]], y[:count]),
        score_exact=score(metric, [exact], y[:count]),
        differing=differing,
        largest_difference=largest if np.isfinite(largest) else None,
        hazard=_hazard(differing, count),
    )


def _differing(metric: str, a: Array, b: Array) -> int:
    if metric == "top1":
        return int((classes(a) != classes(b)).reshape(a.shape[0], -1).any(axis=1).sum())
    spread = float(np.ptp(b)) or 1.0
    gap = np.abs(a.astype(np.float64) - b.astype(np.float64)).reshape(a.shape[0], -1).max(axis=1)
    return int((gap > HAZARD_SHARE * spread).sum())


def _hazard(differing: int, count: int) -> str | None:
    # The lower bound of the share of differing answers: one minus the upper bound of the share of equal ones.
    if 1.0 - wilson_upper(count - differing, count, confidence=HAZARD_CONFIDENCE) <= HAZARD_SHARE:
        return None
    return (
        f"{differing} of {count} answers differ between this CPU's fused kernels and exact arithmetic: its quality "
        "depends on the target's CPU (8-bit weights saturate 16-bit sums without VNNI or dot products; 7-bit "
        "weights avoid that)"
    )
