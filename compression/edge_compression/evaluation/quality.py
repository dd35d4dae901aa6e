"""What a candidate's answers are worth: for each output that is judged its score, what it loses against the original on
the same samples, and a verdict; of all outputs together the worst.

Pure: arrays in, records out. The metrics are in `edge_bench.metrics`, limits in `limits`, the statistics in
`paired_statistics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.inference.quality_metrics import agreement, classes, golden_error, score
from edge_bench.metrics.registry import METRICS, Metric, Parameters
from edge_bench.metrics.table import Table
from edge_bench.stats import Interval, mcnemar_exact, wilson_upper
from edge_compression.evaluation.fidelity import Fidelity
from edge_compression.evaluation.limits import OutputLimit, as_loss, plain_limit
from edge_compression.evaluation.paired_statistics import Quantile, flips, of_draws, resampled
from edge_compression.evaluation.pareto import exceeds
from edge_compression.evaluation.rung_merit import LOSS_SHARE, LOSS_STEP, SampledLoss
from edge_contracts.codec import StrictRecord

Array = NDArray[Any]
Verdict = Literal["within", "undecided", "over"]
_RANK = {"within": 0, "undecided": 1, "over": 2}

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

CLASSES = ("top1", "top5", "f1", "balanced_accuracy")
"""Metrics whose answers agree where they name the same class."""


class OutputQuality(StrictRecord, frozen=True, kw_only=True):
    """One output against the original's on the same samples. `score` and `original` are the metric as people know it;
    `drop`, its 95 % interval, `bound` and `limit` are in `unit`: points, % (of the original's own error, or of its
    answers for fidelity), dB, or the task's own. `named` tells that the task asks for this output."""

    output: str
    metric: str
    named: bool
    score: float
    original: float
    drop: float
    drop_interval: Interval
    bound: float
    limit: float
    unit: str
    verdict: Verdict
    surely_over: bool

    @property
    def words(self) -> str:
        """What is lost, in words: `distance (mae) loses 0.42 %, limit 5 %`."""
        return f"{self.output} ({self.metric}) loses {self.drop:.3g} {self.unit}, limit {self.limit:.3g} {self.unit}"


class Quality(StrictRecord, frozen=True, kw_only=True):
    """A candidate against the original on the same `samples`. `score` is the first output's, higher is better. `drop`,
    its 95 % interval and `bound`, what it loses at most with the confidence asked for, are those of the output that
    decides, in the unit and on the scale of the first one's limit; `p_value` is McNemar's exact test (top1 only).

    `verdict`: "over" when more than the limit was lost, "within" when the bound is within the limit as well,
    "undecided" when only the bound is not. `surely_over`: even at `STOP_CONFIDENCE` more than the limit is lost.
    `outputs` has every output that is judged, `fidelity` how near each of the model's is to the original's.
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
    outputs: tuple[OutputQuality, ...] = ()
    fidelity: tuple[Fidelity, ...] = ()

    @property
    def undecided(self) -> bool:
        """Whether the samples cannot decide the limit."""
        return self.verdict == "undecided"

    @property
    def deciding(self) -> OutputQuality | None:
        """The output that decides: the worst against its own limit."""
        return max(self.outputs, key=_share, default=None)


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
    """What is asked of a candidate: whether it loses at most `limit` of `metric`, with which confidence."""

    metric: str
    limit: float
    confidence: float = DEFAULT_CONFIDENCE


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One output's tables, the original's and a candidate's, with its limit; `weight` is the task's."""

    output: str
    metric: Metric
    limit: OutputLimit
    before: Table
    after: Table
    named: bool = True
    weight: float = 1.0


def judge_output(one: Compared, confidence: float) -> tuple[OutputQuality, Quantile]:
    """Return what one output loses, and the quantile function of that."""
    before, after, limit = one.before.score, one.after.score, one.limit
    quantile = _quantile(one)
    drop, bound = as_loss(one.metric, limit, before, after), quantile(confidence)
    shown = one.metric.unit == "fidelity"
    found = OutputQuality(
        output=one.output,
        metric=one.metric.name,
        named=one.named,
        score=_finite(limit.shown(after) if shown else after),
        original=_finite(limit.shown(before) if shown else before),
        drop=_finite(drop),
        drop_interval=Interval(low=_finite(quantile(0.025)), high=_finite(quantile(0.975))),
        bound=_finite(bound),
        limit=limit.value,
        unit=limit.unit,
        verdict="over" if exceeds(drop, limit.value) else "undecided" if exceeds(bound, limit.value) else "within",
        surely_over=exceeds(quantile(1.0 - STOP_CONFIDENCE), limit.value),
    )
    return found, quantile


def _finite(value: float) -> float:
    """Return a number that JSON can hold: what is infinite is out of all bounds."""
    return float(np.clip(np.nan_to_num(value, nan=1e12, posinf=1e12, neginf=-1e12), -1e12, 1e12))


def _quantile(one: Compared) -> Quantile:
    before, after = one.before, one.after
    if one.metric.unit == "points" and before.means is not None and after.means is not None:
        gained = one.metric.better * (before.means - after.means)
        found = flips(gained) or resampled(gained)
        return lambda share: 100.0 * found(share)
    draws = as_loss(one.metric, one.limit, before.resampled(), after.resampled())
    return of_draws(draws, as_loss(one.metric, one.limit, before.score, after.score))


def sampled_loss(one: Compared) -> SampledLoss:
    """Return what is lost of one output sample by sample, or resample by resample where it is no mean of samples."""
    before, after, limit = one.before, one.after, one.limit
    lost = as_loss(one.metric, limit, before.score, after.score)
    if one.metric.unit == "points" and before.means is not None and after.means is not None:
        means = 100.0 * one.metric.better * (before.means - after.means)
        return SampledLoss(loss=_finite(lost), step=LOSS_STEP, means=means)
    draws = as_loss(one.metric, limit, before.resampled(), after.resampled())
    return SampledLoss(loss=_finite(lost), step=LOSS_SHARE * limit.value, draws=draws)


def _share(one: OutputQuality) -> tuple[int, float]:
    return _RANK[one.verdict], one.bound / one.limit if one.limit > 0.0 else one.bound


def together(found: Sequence[OutputQuality], first: Metric, samples: int) -> Quality:
    """Return what all outputs are together: the worst decides, on the scale of the first one's limit."""
    worst, limit = max(found, key=_share), found[0].limit

    def scaled(value: float) -> float:
        if worst is found[0] or worst.limit <= 0.0:
            return value
        return value * limit / worst.limit if limit > 0.0 else max(0.0, value - worst.limit)

    interval = worst.drop_interval
    return Quality(
        samples=samples,
        score=first.better * found[0].score if first.unit != "fidelity" else found[0].score,
        drop=scaled(worst.drop),
        drop_interval=Interval(low=scaled(interval.low), high=scaled(interval.high)),
        bound=scaled(worst.bound),
        verdict=worst.verdict,
        surely_over=any(one.surely_over for one in found),
        agreement=None,
        p_value=None,
        outputs=tuple(found),
    )


def compare(asked: QualityRequest, answers: Array, original: Array, y: Array, slices: Array | None = None) -> Quality:
    """Compare a candidate's answers with the original's to the same samples, by one metric of one output."""
    one = _compared(asked, answers, original, y)
    found, _ = judge_output(one, asked.confidence)
    made = together((found,), one.metric, int(y.shape[0]))
    more = extras(one, answers, original) | worst_slice(asked.metric, answers, original, y, slices)
    return msgspec.structs.replace(made, **more)


def extras(one: Compared, answers: Array, original: Array) -> dict[str, Any]:
    """Return agreement and McNemar's test, for a classifier with the classes last."""
    if one.metric.name not in CLASSES or answers.ndim < 2:
        return {}
    p_value = None
    if one.metric.name == "top1" and one.before.means is not None and one.after.means is not None:
        gained = one.before.means - one.after.means
        p_value = mcnemar_exact(int((gained > 0).sum()), int((gained < 0).sum()))
    return {"agreement": agreement(answers, original), "p_value": p_value}


def refuted(asked: QualityRequest, answers: Array, original: Array, y: Array) -> bool:
    """Return whether samples that had no say in the choice speak against it: more is lost on them than allowed, with
    the confidence asked for."""
    return speaks_against(_compared(asked, answers, original, y), asked.confidence)


def speaks_against(one: Compared, confidence: float) -> bool:
    """Return whether more is lost than allowed, with the confidence asked for."""
    return exceeds(_quantile(one)(1.0 - confidence), one.limit.value)


def _compared(asked: QualityRequest, answers: Array, original: Array, y: Array) -> Compared:
    metric, none = METRICS[asked.metric], Parameters()
    before, after = metric.table(original, y, none), metric.table(answers, y, none)
    limit = plain_limit(metric, asked.limit)
    return Compared(output="", metric=metric, limit=limit, before=before, after=after)


def worst_slice(metric: str, answers: Array, original: Array, y: Array, slices: Array | None) -> dict[str, Any]:
    """Return the group of samples that loses most, and its points, by a metric of the device's."""
    if slices is None:
        return {}
    drops = {
        str(group): 100.0
        * (
            score(metric, [original[slices == group]], y[slices == group])
            - score(metric, [answers[slices == group]], y[slices == group])
        )
        for group in np.unique(slices)
    }
    worst = max(drops, key=lambda group: drops[group])
    return {"worst_slice": worst, "worst_slice_drop": drops[worst]}


def compare_exact(metric: str, optimized: Array, exact: Array, y: Array) -> Exactness:
    """Compare the optimized graph's answers with the exact graph's on the samples the exact one was run on, by a
    metric of the device's."""
    count = exact.shape[0]
    scores = score(metric, [optimized[:count]], y[:count]), score(metric, [exact], y[:count])
    return exactness([optimized[:count]], [exact], scores, by_class=metric == "top1")


def exactness(
    optimized: Sequence[Array], exact: Sequence[Array], scores: tuple[float, float], *, by_class: bool
) -> Exactness:
    """Compare answers of the optimized and of the exact graph to the same samples, all outputs of the model."""
    count = exact[0].shape[0]
    differing = _differing(optimized, exact, by_class=by_class)
    largest = golden_error(optimized, exact)
    return Exactness(
        samples=count,
        score_optimized=_finite(scores[0]),
        score_exact=_finite(scores[1]),
        differing=differing,
        largest_difference=largest if np.isfinite(largest) else None,
        hazard=_hazard(differing, count),
    )


def _differing(optimized: Sequence[Array], exact: Sequence[Array], *, by_class: bool) -> int:
    """Return how many samples are answered differently: another class of the first output, else more than a
    twentieth of an output's range."""
    if by_class:
        a, b = optimized[0], exact[0]
        return int((classes(a) != classes(b)).reshape(a.shape[0], -1).any(axis=1).sum())
    found = np.zeros(exact[0].shape[0], np.bool_)
    for a, b in zip(optimized, exact, strict=True):
        known = np.isfinite(b)
        spread = float(np.ptp(b[known])) if known.any() else 0.0
        gap = np.abs(np.nan_to_num(a.astype(np.float64)) - np.nan_to_num(b.astype(np.float64)))
        found |= gap.reshape(a.shape[0], -1).max(axis=1, initial=0.0) > HAZARD_SHARE * (spread or 1.0)
    return int(found.sum())


def _hazard(differing: int, count: int) -> str | None:
    # The lower bound of the share of differing answers: one minus the upper bound of the share of equal ones.
    if 1.0 - wilson_upper(count - differing, count, confidence=HAZARD_CONFIDENCE) <= HAZARD_SHARE:
        return None
    return (
        f"{differing} of {count} answers differ between this CPU's fused kernels and exact arithmetic: its quality "
        "depends on the target's CPU (8-bit weights saturate 16-bit sums without VNNI or dot products; 7-bit "
        "weights avoid that)"
    )
