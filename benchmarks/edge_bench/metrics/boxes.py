"""Metrics of boxes in images. pycocotools decides which detection matches which true box; here are the sums over them,
so that they can be taken for weighted images as well.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_bench.metrics.table import FEW, Array, Floats, Table, function_of_sums, ratio
from edge_contracts.errors import MissingExtraError, OperatorError

_quiet = threading.Lock()
"""pycocotools prints. Where that goes is the process's affair, and several threads judge at a time: without a lock one
may put back what another had put in place, and what the command prints afterwards is lost."""

RECALLS = np.linspace(0.0, 1.0, 101)
"""Places at which COCO reads precision."""


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """The boxes of one image: `boxes` [n, 4] as x1, y1, x2, y2, their class numbers and, of detections, scores."""

    boxes: Array
    classes: Array
    scores: Array | None = None


def mean_average_precision(found: Sequence[Boxes], truth: Sequence[Boxes], overlaps: Sequence[float]) -> Table:
    """Return COCO's average precision over classes and over the least intersections over union."""
    evaluation = _matched(found, truth, overlaps)
    classes = [one for one in (_Matches.of(evaluation, kind) for kind in evaluation.params.catIds) if one.true.size]
    count = len(truth)

    def scored(weights: Floats) -> Floats:
        return np.array([_average([one.precision(row) for one in classes]) for row in weights])

    return Table(count=count, scores=scored, resamples=FEW if len(overlaps) == 1 else FEW // 3)


def f1_at(found: Sequence[Boxes], truth: Sequence[Boxes], threshold: float) -> Table:
    """Return the F1 over all boxes with at least that score, of intersections over union of at least 0.5."""
    kept = [_over(one, threshold) for one in found]
    evaluation = _matched(kept, truth, (0.5,))
    terms = np.zeros((len(truth), 3))
    for one in filter(None, evaluation.evalImgs):
        matched = int((one["dtMatches"][0] > 0).sum())
        terms[one["image_id"]] += (matched, len(one["dtScores"]), len(one["gtIds"]))
    return function_of_sums(terms, lambda sums: ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2]))


def as_boxes(rows: Array, count: int) -> list[Boxes]:
    """Return the truth of `count` images from rows of sample, class, x1, y1, x2, y2. Raises OperatorError."""
    if rows.ndim != 2 or rows.shape[1] != 6 or rows.dtype.kind not in "iuf":
        text = f"boxes are rows of sample, class, x1, y1, x2, y2: [M, 6], not {list(rows.shape)}"
        raise OperatorError(text)
    if not np.isfinite(rows).all():
        raise OperatorError("the boxes hold NaN or infinity")
    samples, classes = rows[:, 0], rows[:, 1]
    if rows.size and (samples.min() < 0 or samples.max() >= count or (samples != np.rint(samples)).any()):
        raise OperatorError(f"boxes of samples {samples.min():g} to {samples.max():g}, there are {count}")
    if rows.size and (classes.min() < 0 or (classes != np.rint(classes)).any()):
        raise OperatorError("classes of boxes are whole numbers from 0")
    if (rows[:, 4:] < rows[:, 2:4]).any():
        wrong = int(np.flatnonzero((rows[:, 4:] < rows[:, 2:4]).any(axis=1))[0])
        raise OperatorError(
            f"box {wrong} ends before it begins: x1, y1, x2, y2 are two corners, not a width and height"
        )
    return [
        Boxes(boxes=own[:, 2:].astype(np.float64), classes=own[:, 1].astype(np.int64))
        for own in (rows[samples == index] for index in range(count))
    ]


def _over(one: Boxes, threshold: float) -> Boxes:
    assert one.scores is not None
    kept = one.scores >= threshold
    return Boxes(boxes=one.boxes[kept], classes=one.classes[kept], scores=one.scores[kept])


@dataclass(frozen=True, kw_only=True)
class _Matches:
    """One class: of each detection, likeliest first, its image and whether it is right at each overlap; the images of
    the true boxes."""

    image: Array
    right: Array
    true: Array

    @classmethod
    def of(cls, evaluation: Any, kind: int) -> _Matches:
        images = [one for one in evaluation.evalImgs if one is not None and one["category_id"] == kind]
        overlaps = len(evaluation.params.iouThrs)
        scores = np.concatenate([np.asarray(one["dtScores"], float) for one in images] or [np.empty(0)])
        image = np.concatenate([np.full(len(one["dtScores"]), one["image_id"]) for one in images] or [np.empty(0, int)])
        right = np.concatenate([one["dtMatches"] > 0 for one in images] or [np.empty((overlaps, 0), bool)], axis=1)
        true = np.concatenate([np.full(len(one["gtIds"]), one["image_id"]) for one in images] or [np.empty(0, int)])
        order = np.argsort(-scores, kind="mergesort")
        return cls(image=image[order].astype(np.intp), right=right[:, order], true=true.astype(np.intp))

    def precision(self, weights: Floats) -> float:
        total = weights[self.true].sum()
        if total <= 0.0:
            return np.nan
        each = weights[self.image]
        said = np.cumsum(each)
        return float(np.mean([_interpolated(np.cumsum(np.where(row, each, 0.0)), said, total) for row in self.right]))


def _interpolated(hits: Floats, said: Floats, total: float) -> float:
    precision = hits / np.maximum(said, np.spacing(1))
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / total, RECALLS, side="left")
    return (
        float(np.where(places < best.size, best[np.minimum(places, best.size - 1)], 0.0).mean()) if best.size else 0.0
    )


def _average(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else np.nan


def _matched(found: Sequence[Boxes], truth: Sequence[Boxes], overlaps: Sequence[float]) -> Any:
    """Return pycocotools' evaluation of each image and class, any size, at most 100 detections an image."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingExtraError("compress", "pycocotools") from error
    kinds = sorted({int(kind) for one in (*truth, *found) for kind in one.classes}) or [0]
    with _quiet, contextlib.redirect_stdout(io.StringIO()):
        known, seen = COCO(), COCO()
        for dataset, boxes in ((known, truth), (seen, found)):
            dataset.dataset = {
                "images": [{"id": index} for index in range(len(truth))],
                "categories": [{"id": kind} for kind in kinds],
                "annotations": _annotations(boxes),
            }
            dataset.createIndex()
        evaluation = COCOeval(known, seen, "bbox")
        evaluation.params.iouThrs = np.array(overlaps)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0.0, np.inf]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
    return evaluation


def _annotations(boxes: Sequence[Boxes]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for image, one in enumerate(boxes):
        for index in range(len(one.boxes)):
            x1, y1, x2, y2 = map(float, one.boxes[index])
            entry = {
                "id": len(made) + 1, "image_id": image, "category_id": int(one.classes[index]),
                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0,
            }  # fmt: skip
            if one.scores is not None:
                entry["score"] = float(one.scores[index])
            made.append(entry)
    return made
