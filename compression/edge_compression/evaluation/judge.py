"""Judging a candidate's outputs against the original's: every output that the task names by its own metric and limit,
all others by relative error. The worst decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_bench.judged import AnswerJudge, Finished, JudgedAnswer
from edge_bench.metrics.registry import FIDELITY
from edge_bench.metrics.table import Table, mean_of
from edge_bench.task_format import Allowance
from edge_compression.evaluation.fidelity import doubt, fidelity
from edge_compression.evaluation.limits import OutputLimit, output_limit
from edge_compression.evaluation.quality import (
    CLASSES,
    Compared,
    Exactness,
    Quality,
    exactness,
    extras,
    judge_output,
    sampled_loss,
    speaks_against,
    together,
    worst_slice,
)
from edge_compression.evaluation.rung_merit import SampledLoss
from edge_compression.evaluation.score_maps import score_map
from edge_contracts.errors import OperatorError
from edge_contracts.manifest import ScoreMap

Array = NDArray[Any]
ANYTHING = 1e9
"""A limit that nothing is over."""

DEVICE_METRICS = ("top1", "mae", "rmse")
"""Metrics that a device computes itself."""


class Jury:
    """The judge of one search. `original` are the original's outputs to all samples, in their order."""

    def __init__(
        self,
        judge: AnswerJudge,
        names: Sequence[str],
        original: Sequence[Array],
        *,
        asked: Allowance | None,
        confidence: float,
    ) -> None:
        """Raises OperatorError or ContractError naming file, field and remedy, when the task's truth does not fit what
        the model answers."""
        self._judge, self._names, self._original = judge, list(names), list(original)
        self._confidence = confidence
        self._finished = judge.finish(original)
        self._limits = [output_limit(one.spec, one.metric, asked, self._finished[one.name]) for one in judge.judged]
        if not judge.judged:
            raise OperatorError("no output is left to judge", subject="task outputs")
        self._before = lru_cache(maxsize=256)(self._table_of)
        for index in range(len(judge.judged)):
            self._before(index, 0, len(original[0]))

    @property
    def judged(self) -> tuple[JudgedAnswer, ...]:
        return self._judge.judged

    @property
    def limits(self) -> list[OutputLimit]:
        return self._limits

    @property
    def first_limit(self) -> OutputLimit:
        """The first output's limit, on whose scale losses are given."""
        return self._limits[0]

    @property
    def original_scores(self) -> list[float]:
        """The original's score of each output that is judged, as people know it."""
        count = len(self._original[0])
        scores = [self._before(index, 0, count).score for index in range(len(self.judged))]
        fidelity_ = [one.metric.unit == "fidelity" for one in self.judged]
        shown = zip(scores, self._limits, fidelity_, strict=True)
        return [limit.shown(score) if flag else score for score, limit, flag in shown]

    def classic(self, count: int) -> bool:
        """Whether the first thing judged is the model's first output as a device judges it."""
        first = self.judged[0]
        truth = first.truth
        plain = first.name == self._names[0] and first.parameters.axis in (-1, self._original[0].ndim - 1)
        is_array = isinstance(truth, np.ndarray) and truth.shape[0] == count
        return plain and is_array and first.metric.name in DEVICE_METRICS

    @property
    def maps_scores(self) -> bool:
        """Whether thresholds are compared with scores that a candidate may give otherwise."""
        return bool(self._judge.thresholded)

    def score_maps(self, outputs: Sequence[Array], original: Sequence[Array]) -> tuple[ScoreMap, ...]:
        """Return how a candidate's scores become the original's, from the answers of both to the same samples."""
        own, given = self._judge.scores(outputs), self._judge.scores(original)
        found = [score_map(name, own[name], given[name]) for name in self._judge.thresholded]
        return tuple(one for one in found if one is not None)

    def compare(
        self, outputs: Sequence[Array], where: slice, slices: Array | None = None, maps: Sequence[ScoreMap] = ()
    ) -> Quality:
        """Judge a candidate's outputs to the samples `where`."""
        pairs = self._compared(outputs, where, maps)
        found = [judge_output(one, self._confidence)[0] for one in pairs]
        made = together(found, self.judged[0].metric, len(outputs[0]))
        more: dict[str, Any] = {}
        if self.judged[0].name == self._names[0]:
            more = extras(pairs[0], outputs[0], self._original[0][where])
        if slices is not None and self.classic(len(self._original[0])):
            truth = self.judged[0].truth
            assert isinstance(truth, np.ndarray)
            metric = self.judged[0].metric.name
            more |= worst_slice(metric, outputs[0], self._original[0][where], truth[where], slices)
        return msgspec.structs.replace(made, **more, fidelity=self._fidelity(outputs, where))

    def tables(self, outputs: Sequence[Array], maps: Sequence[ScoreMap] = ()) -> list[Compared]:
        """Return of everything judged the tables of original and candidate over all samples."""
        return self._compared(outputs, slice(0, len(self._original[0])), maps)

    def answered(
        self, outputs: Sequence[Array] | None = None, maps: Sequence[ScoreMap] = ()
    ) -> list[tuple[JudgedAnswer, Any, Any]]:
        """Return everything judged with a model's answers to all samples, the original's without `outputs`, and what
        is right."""
        finished = self._finished if outputs is None else self._judge.finish(outputs, maps)
        everywhere = slice(0, len(self._original[0]))
        return [(one, finished[one.name], self._truth(one, everywhere)) for one in self.judged]

    def losses(self, outputs: Sequence[Array], where: slice, maps: Sequence[ScoreMap] = ()) -> list[SampledLoss]:
        """Return what a candidate loses of each output on the samples `where`, for comparing it with another one."""
        return [sampled_loss(one) for one in self._compared(outputs, where, maps)]

    def refuted(self, outputs: Sequence[Array], where: slice, maps: Sequence[ScoreMap] = ()) -> str | None:
        """Return which output loses more than allowed on samples that had no say in the choice, or None."""
        for one in self._compared(outputs, where, maps):
            if speaks_against(one, self._confidence):
                return judge_output(one, self._confidence)[0].words
        return None

    def exactness(self, optimized: Sequence[Array], exact: Sequence[Array]) -> Exactness:
        """Compare a candidate's outputs with those of exact arithmetic to the first samples."""
        where = slice(0, exact[0].shape[0])
        by_class = self.judged[0].metric.name == "top1" and self.judged[0].name == self._names[0]
        cut = [one[where] for one in optimized]
        scores = tuple(self._first(one, where) for one in (cut, exact))
        return exactness(cut, exact, (scores[0], scores[1]), by_class=by_class)

    def doubts(self, quality: Quality) -> list[str]:
        """Return what should be doubted: outputs whose metric is content and whose answers are far away."""
        losses = {one.output: one for one in quality.outputs}
        found = []
        for one in quality.fidelity:
            judged = losses.get(one.output) or quality.deciding
            if judged is None or judged.metric == "fidelity":
                continue
            by_class = judged.metric not in ("mae", "rmse", "mape", "si_sdr", "psnr", "ssim", "cosine")
            found.append(doubt(one, judged.drop, judged.limit, by_class=by_class))
        return [one for one in found if one is not None]

    def _first(self, outputs: Sequence[Array], where: slice) -> float:
        one = self.judged[0]
        finished = self._judge.finish(outputs)
        try:
            made = one.table(finished[one.name], self._truth(one, where)).score
        except OperatorError:  # a part of the samples may have one class only
            return float("nan")
        return self._limits[0].shown(made) if one.metric.unit == "fidelity" else one.metric.better * made

    def _compared(self, outputs: Sequence[Array], where: slice, maps: Sequence[ScoreMap]) -> list[Compared]:
        finished = self._judge.finish(outputs, maps)
        return [self._pair(index, finished, where) for index in range(len(self.judged))]

    def _pair(self, index: int, finished: Finished, where: slice) -> Compared:
        one, limit = self.judged[index], self._limits[index]
        start, stop, _ = where.indices(len(self._original[0]))
        weight = 1.0 if one.spec is None else one.spec.weight
        try:
            before, metric = self._before(index, start, stop), one.metric
        except OperatorError:
            # All samples have a score, these few have none: a part without one of two kinds has no area under a curve.
            before = mean_of(np.zeros(stop - start))
            limit, metric = replace(limit, value=ANYTHING, unit="%", absolute=False), FIDELITY
            return Compared(
                output=one.name, metric=metric, limit=limit, before=before, after=before, named=one.named, weight=weight
            )
        after = one.table(finished[one.name], self._truth(one, where))
        return Compared(
            output=one.name, metric=metric, limit=limit, before=before, after=after, named=one.named, weight=weight
        )

    def _table_of(self, index: int, start: int, stop: int) -> Table:
        one, where = self.judged[index], slice(start, stop)
        return one.table(self._finished[one.name][where], self._truth(one, where))

    def _truth(self, one: JudgedAnswer, where: slice) -> Any:
        return self._judge.truth(one, self._judge.part(self._finished, where), where)

    def _fidelity(self, outputs: Sequence[Array], where: slice) -> Any:
        by_class = (*CLASSES, "miou", "pixel_accuracy")
        axes = {one.name: one.parameters.axis for one in self.judged if one.metric.name in by_class}
        pairs = zip(self._names, outputs, self._original, strict=True)
        return tuple(fidelity(name, a, b[where], axis=axes.get(name)) for name, a, b in pairs)
