"""Boxes before and after, image by image: which are found, which are false, and precision over recall. Pure.

A detection is right when it overlaps a true box of its class by half that no surer one has taken, as in COCO's
evaluation (T.-Y. Lin et al., ECCV 2014). The scores of the ladder are pycocotools'; here it is what people are shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_bench.metrics.boxes import Boxes
from edge_contracts.codec import StrictRecord

Array = NDArray[Any]
OVERLAP = 0.5
USUAL_THRESHOLD = 0.5
"""Score from which a detection is shown where the task names no threshold."""

POINTS = 60
"""Points of a curve at most."""


class DrawnBox(StrictRecord, frozen=True, kw_only=True):
    """A box in the truth's unit: a true one, one the original finds, or one the rung finds."""

    kind: Literal["true", "before", "after"]
    x1: float
    y1: float
    x2: float
    y2: float


class Curve(StrictRecord, frozen=True, kw_only=True):
    """Precision over recall of all classes together, as shares, one point for each score; `threshold` is the score from
    which `at_before` and `at_after` (recall, precision) count."""

    before: tuple[tuple[float, float], ...]
    after: tuple[tuple[float, float], ...]
    threshold: float
    at_before: tuple[float, float]
    at_after: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ImageBoxes:
    """One image at the threshold: how many boxes are true, found and false; `same`: the same ones are found."""

    image: int
    true: int
    before_found: int
    before_false: int
    after_found: int
    after_false: int
    same: bool
    drawn: tuple[DrawnBox, ...]


@dataclass(frozen=True, kw_only=True)
class BoxCompared:
    """All images, and the curve over them."""

    images: tuple[ImageBoxes, ...]
    curve: Curve


def compare_boxes(
    before: Sequence[Boxes], after: Sequence[Boxes], truth: Sequence[Boxes], threshold: float | None
) -> BoxCompared:
    """Compare the detections of two models in the same images."""
    least = USUAL_THRESHOLD if threshold is None else threshold
    was = [matches(found, true) for found, true in zip(before, truth, strict=True)]
    now = [matches(found, true) for found, true in zip(after, truth, strict=True)]
    images = tuple(_image(index, (before, after, truth), (was, now), least) for index in range(len(truth)))
    total = sum(len(one.boxes) for one in truth)
    first, second = _curve(before, was, total), _curve(after, now, total)
    curve = Curve(
        before=_thinned(first), after=_thinned(second), threshold=least, at_before=_at(before, was, total, least),
        at_after=_at(after, now, total, least),
    )  # fmt: skip
    return BoxCompared(images=images, curve=curve)


def matches(found: Boxes, true: Boxes) -> Array:
    """Return of each detection [n] the true box it is right about, -1 where it is false."""
    assert found.scores is not None
    taken = np.zeros(len(true.boxes), np.bool_)
    result = np.full(len(found.boxes), -1, np.intp)
    overlaps = intersection_over_union(found.boxes, true.boxes)
    for index in np.argsort(-found.scores, kind="mergesort"):
        fits = np.where(taken | (true.classes != found.classes[index]), 0.0, overlaps[index])
        if fits.size and fits.max() >= OVERLAP:
            result[index] = int(fits.argmax())
            taken[result[index]] = True
    return result


def intersection_over_union(a: Array, b: Array) -> Array:
    """Return [n, m] of boxes [n, 4] and [m, 4]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0.0, None).prod(axis=2)
    areas = (a[:, 2:] - a[:, :2]).prod(axis=1)[:, None] + (b[:, 2:] - b[:, :2]).prod(axis=1)[None]
    return np.asarray(shared / np.maximum(areas - shared, 1e-12))


def _image(
    index: int, boxes: tuple[Sequence[Boxes], Sequence[Boxes], Sequence[Boxes]], matched: Any, least: float
) -> ImageBoxes:
    before, after, truth = (part[index] for part in boxes)
    was, now = (part[index][_kept(found, least)] for part, found in zip(matched, (before, after), strict=True))
    return ImageBoxes(
        image=index,
        true=len(truth.boxes),
        before_found=int((was >= 0).sum()),
        before_false=int((was < 0).sum()),
        after_found=int((now >= 0).sum()),
        after_false=int((now < 0).sum()),
        same=set(was[was >= 0].tolist()) == set(now[now >= 0].tolist()),
        drawn=(*_drawn("true", truth, 0.0), *_drawn("before", before, least), *_drawn("after", after, least)),
    )


def _kept(one: Boxes, least: float) -> Array:
    """Return which boxes are sure enough; true ones are."""
    return np.ones(len(one.boxes), np.bool_) if one.scores is None else np.asarray(one.scores >= least)


def _drawn(kind: Literal["true", "before", "after"], one: Boxes, least: float) -> Iterator[DrawnBox]:
    for x1, y1, x2, y2 in one.boxes[_kept(one, least)][:20].tolist():
        yield DrawnBox(kind=kind, x1=round(x1, 3), y1=round(y1, 3), x2=round(x2, 3), y2=round(y2, 3))


def _curve(found: Sequence[Boxes], matched: Sequence[Array], total: int) -> list[tuple[float, float]]:
    scores = np.concatenate([np.asarray(one.scores, np.float64) for one in found] or [np.empty(0)])
    right = np.concatenate([one >= 0 for one in matched] or [np.empty(0, np.bool_)])
    order = np.argsort(-scores, kind="mergesort")
    hits = np.cumsum(right[order])
    precision = hits / np.arange(1, hits.size + 1)
    return [(float(hit) / max(1, total), float(share)) for hit, share in zip(hits, precision, strict=True)]


def _thinned(points: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    chosen = np.unique(np.linspace(0, max(0, len(points) - 1), min(POINTS, len(points))).astype(np.intp))
    return tuple((round(points[i][0], 4), round(points[i][1], 4)) for i in chosen.tolist())


def _at(found: Sequence[Boxes], matched: Sequence[Array], total: int, least: float) -> tuple[float, float]:
    kept = [own[_kept(one, least)] for one, own in zip(found, matched, strict=True)]
    hits, said = sum(int((one >= 0).sum()) for one in kept), sum(one.size for one in kept)
    return round(hits / max(1, total), 4), round(hits / max(1, said), 4)
