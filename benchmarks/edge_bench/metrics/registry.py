"""The metrics by name: what each asks of answers and truth, in which unit a loss of it is counted, and which way is
better. A user's own metric, `FILE.py:function`, is one more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge_bench.metrics import boxes, classes, text, values
from edge_bench.metrics.table import Array, Floats, Table
from edge_bench.user_code import load_function
from edge_contracts.errors import OperatorError

Unit = Literal["points", "percent", "decibels", "fidelity"]
"""How a loss is counted: hundredths of the metric; percent of the original's own error; decibels; percent of relative
error against the original's answers."""

Answers = Any
"""An array [N, ...], or a list of `boxes.Boxes`."""

OWN_RESAMPLES = 40
"""Times a user's own metric is asked for its interval: it may be slow."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a task says of an output besides its metric."""

    axis: int = -1
    threshold: float | None = None
    k: int | None = None

    def needed(self, name: str, metric: str) -> Any:
        """Return a parameter that the metric cannot do without. Raises OperatorError."""
        value = getattr(self, name)
        if value is None:
            raise OperatorError(f"{metric} needs `{name}`", hint=f"{name} = ... beside the metric of this output")
        return value


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric. `better` is 1 where higher is better, -1 where lower is. `sort` is what it judges: an array of
    numbers, texts or boxes. `without_truth` makes a truth of the original's answers; None where there is none to be
    made, `fidelity` taking its place for errors and signals."""

    name: str
    unit: Unit
    better: int
    table: Callable[[Answers, Answers, Parameters], Table]
    sort: Literal["array", "boxes"] = "array"
    without_truth: Callable[[Answers, Parameters], Answers] | None = None


def metric_named(name: str, folder: Path) -> Metric:
    """Return a metric; `FILE.py:function` is looked for beside the task, in `folder`. Raises OperatorError."""
    if name in METRICS:
        return METRICS[name]
    if ".py:" in name:
        function = load_function(name, folder, "metric")
        return Metric(name=name, unit="points", better=1, table=lambda a, y, _: _own(function, name, a, y))
    hint = f"one of {', '.join(sorted(METRICS))}, or a function of yours: my_metric.py:score"
    raise OperatorError(f"{name[:80]!r} is not known", hint=hint)


def _own(function: Callable[..., Any], name: str, answers: Answers, truth: Answers) -> Table:
    """Return a user's metric; higher is better. It is called with answers and truth of the samples it is to judge."""
    count = len(answers)

    def one(weights: Floats) -> float:
        index = np.repeat(np.arange(count), weights.astype(np.intp))
        chosen = ([part[i] for i in index] if isinstance(part, list) else part[index] for part in (answers, truth))
        try:
            found = float(function(*chosen))
        except (Exception, SystemExit) as error:
            raise OperatorError(f"{name}: {type(error).__name__}: {str(error)[:300]}") from error
        if not np.isfinite(found) and (weights == 1).all():
            raise OperatorError(f"{name} returned {found}, no finite number")
        return found

    return Table(count=count, scores=lambda weights: np.array([one(row) for row in weights]), resamples=OWN_RESAMPLES)


def _classes_of(answers: Array, parameters: Parameters) -> Array:
    if answers.ndim < 2:
        raise OperatorError(f"takes a score for each class, the answers are {list(answers.shape)}")
    return np.asarray(answers.argmax(axis=parameters.axis))


def _boxes_of(found: Sequence[boxes.Boxes], parameters: Parameters) -> list[boxes.Boxes]:
    """Return the original's own detections as true ones: those at least as sure as the threshold, or half sure."""
    least = 0.5 if parameters.threshold is None else parameters.threshold
    kept = []
    for one in found:
        assert one.scores is not None
        chosen = one.scores >= least
        kept.append(boxes.Boxes(boxes=one.boxes[chosen].astype(np.float64), classes=one.classes[chosen]))
    return kept


def _same(answers: Answers, _: Parameters) -> Answers:
    return answers


def _points(name: str, table: Callable[[Any, Any, Parameters], Table], **more: Any) -> Metric:
    return Metric(name=name, unit="points", better=1, table=table, **more)


def _error(name: str, table: Callable[[Any, Any], Table]) -> Metric:
    return Metric(name=name, unit="percent", better=-1, table=lambda a, y, _: table(a, y))


COCO = tuple(np.linspace(0.5, 0.95, 10))
FIDELITY = Metric(
    name="fidelity", unit="fidelity", better=-1, table=lambda a, y, _: values.relative_error(a, y), without_truth=_same
)

METRICS: dict[str, Metric] = {
    one.name: one
    for one in (
        _points("top1", lambda a, y, p: classes.top_k(a, y, 1, p.axis), without_truth=_classes_of),
        _points("top5", lambda a, y, p: classes.top_k(a, y, 5, p.axis), without_truth=_classes_of),
        _points("f1", lambda a, y, p: classes.f1(a, y, p.axis), without_truth=_classes_of),
        _points(
            "balanced_accuracy", lambda a, y, p: classes.balanced_accuracy(a, y, p.axis), without_truth=_classes_of
        ),
        _points("miou", lambda a, y, p: classes.mean_iou(a, y, p.axis), without_truth=_classes_of),
        _points("pixel_accuracy", lambda a, y, p: classes.top_k(a, y, 1, p.axis), without_truth=_classes_of),
        _points("auroc", lambda a, y, _: classes.auroc(a, y)),
        _points("average_precision", lambda a, y, _: classes.average_precision(a, y)),
        _points(
            "accuracy_at",
            lambda a, y, p: classes.accuracy_at(a, y, p.needed("threshold", "accuracy_at")),
            without_truth=lambda a, p: (a >= p.needed("threshold", "accuracy_at")).astype(np.int8),
        ),
        _points(
            "map50", lambda a, y, _: boxes.mean_average_precision(a, y, (0.5,)), sort="boxes", without_truth=_boxes_of
        ),
        _points(
            "map", lambda a, y, _: boxes.mean_average_precision(a, y, COCO), sort="boxes", without_truth=_boxes_of
        ),
        _points(
            "f1_at", lambda a, y, p: boxes.f1_at(a, y, p.needed("threshold", "f1_at")), sort="boxes",
            without_truth=_boxes_of,
        ),
        _error("mae", values.mae),
        _error("rmse", values.rmse),
        _error("mape", values.mape),
        Metric(name="si_sdr", unit="decibels", better=1, table=lambda a, y, _: values.si_sdr(a, y)),
        Metric(name="psnr", unit="decibels", better=1, table=lambda a, y, _: values.psnr(a, y)),
        _points("ssim", lambda a, y, _: values.ssim(a, y), without_truth=_same),
        Metric(name="cer", unit="points", better=-1, table=lambda a, y, _: text.cer(a, y), without_truth=_same),
        Metric(name="wer", unit="points", better=-1, table=lambda a, y, _: text.wer(a, y), without_truth=_same),
        _points("cosine", lambda a, y, _: values.cosine(a, y), without_truth=_same),
        _points("recall_at", lambda a, y, p: values.recall_at(a, y, p.needed("k", "recall_at"))),
        FIDELITY,
    )
}  # fmt: skip
