"""What a model's answers to a task's samples are worth: the first metric with its interval, and the group of samples
that fares worst. What a loss against another model means is decided in `edge_compression.evaluation.quality`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_agent.inference.conformal import Predictor
from edge_bench.judged import AnswerJudge, JudgedAnswer, manifest_inputs
from edge_bench.metrics.registry import Unit
from edge_bench.metrics.table import Array
from edge_bench.protocol import Opened
from edge_bench.stats import Interval
from edge_bench.task import Task
from edge_contracts.codec import StrictRecord

CONFIDENCE = 0.95


class TaskQuality(StrictRecord, frozen=True, kw_only=True):
    """The first metric of a task as people know it, with its 95 % bootstrap interval over the samples, None where no
    resample has a value. `better` is 1 where higher is better, -1 where lower is. `worst_slice` is the group of samples
    (array `slices` of the task) with the worst `worst_score`. `covered` is the
    share of samples whose conformal set, by the variant's own threshold, holds the truth; `promised` what that says."""

    metric: str
    unit: Unit
    better: int
    score: float
    interval: Interval | None
    samples: int
    worst_slice: str | None = None
    worst_score: float | None = None
    covered: float | None = None
    promised: float | None = None


def quality_of(
    task: Task, opened: Opened, outputs: Sequence[Array], predictor: Predictor | None = None
) -> TaskQuality | None:
    """Return what a model's outputs to all samples are worth; None where the task has no truth for its first metric:
    of a model alone there is no saying how near it is to another. Raises OperatorError."""
    judge = AnswerJudge(task, manifest_inputs(task, opened.inputs), opened.outputs)
    first = judge.judged[0]
    if first.truth is None:
        return None
    answers = judge.finish(outputs)[first.name]
    table = first.table(answers, first.truth)
    draws = table.resampled()
    tail = (1.0 - CONFIDENCE) / 2
    ends = np.nanquantile(draws, (tail, 1.0 - tail)) if np.isfinite(draws).any() else None
    covered = None if predictor is None else _covered(predictor, opened, outputs, first.truth)
    worst = None if task.slices is None else _worst(first, answers, task.slices)
    return TaskQuality(
        metric=first.metric.name,
        unit=first.metric.unit,
        better=first.metric.better,
        score=table.score,
        interval=None if ends is None else Interval(low=float(ends[0]), high=float(ends[1])),
        samples=table.count,
        worst_slice=None if worst is None else worst[0],
        worst_score=None if worst is None else worst[1],
        covered=None if covered is None else covered[0],
        promised=None if covered is None else covered[1],
    )


def _worst(one: JudgedAnswer, answers: Any, slices: Array) -> tuple[str, float] | None:
    scores = {}
    for group in np.unique(slices):
        index = np.flatnonzero(slices == group)
        value = one.table(_taken(answers, index), _taken(one.truth, index)).score
        if np.isfinite(value):
            scores[str(group)] = value
    if not scores:
        return None
    worst = min(scores, key=lambda group: one.metric.better * scores[group])
    return worst, scores[worst]


def _covered(predictor: Predictor, opened: Opened, outputs: Sequence[Array], truth: Any) -> tuple[float, float] | None:
    """Return the share of conformal sets that hold the truth, and the share promised; None where the truth is no class
    or value a sample."""
    if not isinstance(truth, np.ndarray) or truth.ndim != 1 or len(truth) != len(outputs[0]):
        return None
    known = {one.name: array for one, array in zip(opened.outputs, outputs, strict=True)}
    try:
        said = predictor.predict(known)
    except KeyError:
        return None
    if said.sets and len(said.sets) == len(truth):
        inside = [int(label) in classes for label, classes in zip(truth, said.sets, strict=True)]
    elif said.width is not None:
        inside = list(np.abs(outputs[0].reshape(len(truth), -1)[:, 0] - truth) <= said.width)
    else:
        return None
    return float(np.mean(inside)), said.coverage


def _taken(values: Any, index: Array) -> Any:
    return [values[place] for place in index] if isinstance(values, list) else values[index]
