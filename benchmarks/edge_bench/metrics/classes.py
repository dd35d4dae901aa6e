"""Metrics of classes: which one it is, of a sample or of each of its pixels, and how well scores rank.

Areas under curves are those of scikit-learn (`roc_auc_score`, `average_precision_score` with sample weights), written
for many weightings at a time; its results are the tests' reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_bench.metrics.table import Array, Floats, Table, finite, function_of_sums, mean_of, per_sample, ratio
from edge_contracts.errors import OperatorError

MAX_CLASSES = 10_000
"""Classes that a table of counts is made for."""


def top_k(answers: Array, truth: Array, k: int, axis: int = -1) -> Table:
    """Return the share of right answers: the truth is among the `k` largest along the classes' axis."""
    scores, y = _scores_and_classes(answers, truth, axis, f"top{k}")
    if k == 1:
        right = scores.argmax(axis=-1) == y
    else:
        own = np.take_along_axis(scores, y[..., None].astype(np.intp), axis=-1)
        # of equal scores the first counts, as in argmax
        before = np.arange(scores.shape[-1]) < y[..., None]
        right = ((scores > own) | ((scores == own) & before)).sum(axis=-1) < k
    right &= ~np.isnan(scores).any(axis=-1)
    return mean_of(per_sample(right).mean(axis=1))


def balanced_accuracy(answers: Array, truth: Array, axis: int = -1) -> Table:
    """Return the mean over classes of the share of their samples that is found."""
    found = _Counts.of(answers, truth, axis, "balanced_accuracy")
    return _per_class(found, lambda hit, _, true: ratio(hit, true), lambda _, __, true: true > 0)


def f1(answers: Array, truth: Array, axis: int = -1) -> Table:
    """Return the F1 of class 1 for two classes, of more the mean over those there are."""
    found = _Counts.of(answers, truth, axis, "f1")
    two = found.hit.shape[1] == 2

    def present(_: Floats, said: Floats, true: Floats) -> Array:
        known = said + true > 0
        if two:
            known[:, 0] = False
        return known

    return _per_class(found, lambda hit, said, true: ratio(2 * hit, said + true), present)


def mean_iou(answers: Array, truth: Array, axis: int = -1) -> Table:
    """Return the mean over classes of intersection over union, over all pixels of all samples."""
    found = _Counts.of(answers, truth, axis, "miou")
    return _per_class(
        found, lambda hit, said, true: ratio(hit, said + true - hit), lambda hit, said, true: said + true - hit > 0
    )


def accuracy_at(answers: Array, truth: Array, threshold: float) -> Table:
    """Return the share of right decisions: at least the threshold, or not."""
    scores, y = binary(answers, truth, "accuracy_at")
    return mean_of(per_sample((scores >= threshold) == (y > 0)).mean(axis=1))


def auroc(answers: Array, truth: Array) -> Table:
    """Return the area under the receiver operating characteristic, the mean over the columns of several classes."""
    return _ranking(answers, truth, "auroc", _area)


def average_precision(answers: Array, truth: Array) -> Table:
    """Return the average precision, the mean over the columns of several classes."""
    return _ranking(answers, truth, "average_precision", _precision)


def binary(answers: Array, truth: Array, metric: str) -> tuple[Array, Array]:
    """Return scores and 0/1 of one shape [N, ...]; of two columns against one truth the second is the score. Raises
    OperatorError for others."""
    finite(answers, metric)
    y = truth
    if y.dtype.kind not in "biuf" or not np.isin(y, (0, 1)).all():
        raise OperatorError(f"{metric} takes a truth of 0 and 1")
    if answers.dtype.kind not in "biuf":
        raise OperatorError(f"{metric} takes scores that are numbers")
    scores = answers
    if scores.shape[-1:] == (2,) and scores.shape[:-1] == y.shape[: scores.ndim - 1] and y.size * 2 == scores.size:
        scores = scores[..., 1]
    if scores.size != y.size or scores.shape[0] != y.shape[0]:
        text = f"{metric} takes one score for each 0 or 1: {list(answers.shape[1:])} a sample for {list(y.shape[1:])}"
        raise OperatorError(text)
    return scores.reshape(y.shape), y


def _ranking(answers: Array, truth: Array, metric: str, area: object) -> Table:
    if truth.dtype.kind in "iu" and truth.ndim == 1 and answers.ndim == 2 and answers.shape[1] > 2:
        high = int(truth.max(initial=0))
        if high >= answers.shape[1] or int(truth.min(initial=0)) < 0:
            raise OperatorError(f"{metric}: classes up to {high} in the truth, {answers.shape[1]} in the answers")
        truth = np.eye(answers.shape[1], dtype=np.int8)[truth]
    scores, y = binary(answers, truth, metric)
    wide = scores.ndim == 2 and scores.shape[1] > 1 and truth.ndim == 2 and answers.shape == truth.shape
    columns = [(scores[:, one], y[:, one]) for one in range(scores.shape[1])] if wide else [(scores, y)]
    ranks = [_Ranked.of(*column) for column in columns if 0 < np.count_nonzero(column[1]) < column[1].size]
    if not ranks:
        raise OperatorError(f"{metric} needs samples of both kinds, the truth has one")
    assert callable(area)

    def scored(weights: Floats) -> Floats:
        found = np.stack([area(one, weights) for one in ranks])
        known = np.isfinite(found)
        return ratio(np.where(known, found, 0.0).sum(axis=0), known.sum(axis=0))

    return Table(count=answers.shape[0], scores=scored)


@dataclass(frozen=True, kw_only=True)
class _Ranked:
    """Scores in rising order: whose sample each is, whether it is positive, and where groups of equal ones begin."""

    sample: Array
    positive: Array
    starts: Array

    @classmethod
    def of(cls, scores: Array, y: Array) -> _Ranked:
        flat = scores.reshape(-1).astype(np.float64)
        each = scores.size // scores.shape[0]
        order = np.argsort(flat, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(flat[order]) > 0])
        return cls(sample=order // each, positive=y.reshape(-1)[order] > 0, starts=starts)

    def groups(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the weights of positives and negatives [R, groups], scores rising."""
        each = weights[:, self.sample]
        positive = np.add.reduceat(np.where(self.positive, each, 0.0), self.starts, axis=1)
        return positive, np.add.reduceat(each, self.starts, axis=1) - positive


def _area(ranked: _Ranked, weights: Floats) -> Floats:
    positive, negative = ranked.groups(weights)
    below = np.cumsum(negative, axis=1) - negative
    won = (positive * (below + negative / 2)).sum(axis=1)
    return ratio(won, positive.sum(axis=1) * negative.sum(axis=1))


def _precision(ranked: _Ranked, weights: Floats) -> Floats:
    positive, negative = (side[:, ::-1] for side in ranked.groups(weights))
    found = np.cumsum(positive, axis=1)
    precision = np.nan_to_num(ratio(found, found + np.cumsum(negative, axis=1)))
    return ratio((precision * positive).sum(axis=1), found[:, -1])


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """Of each sample and class: elements found rightly, said to be of it, and truly of it; each [N, C]."""

    hit: Floats
    said: Floats
    true: Floats

    @classmethod
    def of(cls, answers: Array, truth: Array, axis: int, metric: str) -> _Counts:
        scores, y = _scores_and_classes(answers, truth, axis, metric)
        if scores.shape[-1] > MAX_CLASSES:
            raise OperatorError(f"{metric} of {scores.shape[-1]} classes, at most {MAX_CLASSES}")
        count = scores.shape[-1]
        said, true = per_sample(scores.argmax(axis=-1)), per_sample(y)
        said = np.where(per_sample(np.asarray(np.isnan(scores).any(axis=-1))), -1, said)
        return cls(hit=_histogram(np.where(said == true, true, -1), count), said=_histogram(said, count),
                   true=_histogram(true, count))  # fmt: skip


def _histogram(classes: Array, count: int) -> Floats:
    rows = np.arange(classes.shape[0])[:, None] * count
    known = classes >= 0
    flat = (rows + classes)[known]
    return np.bincount(flat.reshape(-1), minlength=classes.shape[0] * count).reshape(-1, count).astype(np.float64)


def _per_class(found: _Counts, value: object, known: object) -> Table:
    count = found.hit.shape[1]
    assert callable(value)
    assert callable(known)

    def combine(sums: Floats) -> Floats:
        parts = sums[:, :count], sums[:, count : 2 * count], sums[:, 2 * count :]
        counts = known(*parts)
        return ratio(np.where(counts, np.nan_to_num(value(*parts)), 0.0).sum(axis=1), counts.sum(axis=1))

    return function_of_sums(np.hstack([found.hit, found.said, found.true]), combine)


def _scores_and_classes(answers: Array, truth: Array, axis: int, metric: str) -> tuple[Array, Array]:
    """Return scores with the classes last, and the truth in the shape of the rest. Raises OperatorError."""
    if answers.dtype.kind not in "biuf":
        raise OperatorError(f"{metric} takes scores that are numbers")
    if answers.ndim < 2 or not -answers.ndim < axis < answers.ndim or axis == 0:
        raise OperatorError(f"{metric} takes a score for each class, the answers are {_shape(answers)}")
    scores = np.moveaxis(answers, axis, -1)
    if scores.shape[-1] < 2:
        hint = "of one score a sample: auroc, average_precision or accuracy_at"
        raise OperatorError(f"{metric} takes a score for each class, the answers are {_shape(answers)}", hint=hint)
    if truth.dtype.kind == "f" and (truth == np.rint(truth)).all():
        truth = truth.astype(np.int64)
    if truth.dtype.kind not in "iub":
        raise OperatorError(f"{metric} takes whole numbers of classes as the truth, not {truth.dtype}")
    if truth.size * scores.shape[-1] != scores.size or truth.shape[0] != scores.shape[0]:
        place = f"along axis {axis}" if axis != -1 else "last"
        text = f"{metric}: with the classes {place}, answers of {_shape(answers)} take a truth of"
        hint = "`axis` of this output says where the classes are"
        raise OperatorError(
            f"{text} [N{''.join(f', {s}' for s in scores.shape[1:-1])}], not {_shape(truth)}", hint=hint
        )
    low, high = int(truth.min(initial=0)), int(truth.max(initial=0))
    if low < 0 or high >= scores.shape[-1]:
        raise OperatorError(f"{metric}: labels {low} to {high} for {scores.shape[-1]} classes")
    return scores, truth.reshape(scores.shape[:-1]).astype(np.int64)


def _shape(array: Array) -> str:
    return f"[N{''.join(f', {size}' for size in array.shape[1:])}]"
