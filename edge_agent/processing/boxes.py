"""Boxes in images: their forms, how much two have in common, and which of many are about different things.

Non-maximum suppression, greedy within each class, as in A. Neubeck, L. Van Gool, ICPR 2006.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_contracts.limits import MAX_CANDIDATES

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]
Form = Literal["xyxy", "yxyx", "cxcywh"]


def corners(boxes: NDArray[Any], form: Form) -> Floats:
    """Return boxes [..., 4] of any form as x1, y1, x2, y2."""
    values = boxes.astype(np.float32)
    if form == "yxyx":
        return values[..., [1, 0, 3, 2]]
    if form == "cxcywh":
        half = values[..., 2:] / 2
        return np.concatenate([values[..., :2] - half, values[..., :2] + half], axis=-1)
    return values


def suppress(
    boxes: Floats, scores: Floats, *, iou_over: float, score_over: float, most: int
) -> tuple[Indices, Indices]:
    """Return box and class indices of at most `most` detections, likeliest first; of equal scores the first box.

    `boxes` [n, 4] as x1, y1, x2, y2, `scores` [n, classes]. A box goes if one of its class with a higher score shares
    more than `iou_over` of their union with it. At most MAX_CANDIDATES are looked at, the likeliest.
    """
    box, kind = np.nonzero(scores > score_over)
    order = np.argsort(-scores[box, kind], kind="stable")[:MAX_CANDIDATES]
    box, kind = box[order], kind[order]
    kept: list[int] = []
    open_ = np.ones(box.size, np.bool_)
    for index in range(box.size):
        if not open_[index]:
            continue
        kept.append(index)
        if len(kept) == most:
            break
        rest = index + 1 + np.flatnonzero(open_[index + 1 :] & (kind[index + 1 :] == kind[index]))
        open_[rest[overlap(boxes[box[index]], boxes[box[rest]]) > iou_over]] = False
    return box[kept], kind[kept]


def overlap(one: Floats, others: Floats) -> Floats:
    """Return the intersection of one box [4] with others [n, 4] over their union; 0 for boxes without area."""
    low, high = np.maximum(one[:2], others[:, :2]), np.minimum(one[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0.0), axis=1)
    union = _area(one[None]) + _area(others) - common
    return np.asarray(common / np.where(union > 0.0, union, 1.0), dtype=np.float32)


def _area(boxes: Floats) -> Floats:
    return np.asarray(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1))
