"""Bilinear resampling of images: a rectangle of one image, in fractions of pixels, becomes an image of any size.

Each axis is a weighted sum of a few source rows, taken over whole rows at a time: nothing looks at single pixels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_contracts.processing import Fit

Image = NDArray[Any]
Floats = NDArray[np.float32]


class Region(Struct, frozen=True, kw_only=True):
    """A rectangle in pixels of its image, from the outer edge of its first to that of its last pixel."""

    top: float
    left: float
    bottom: float
    right: float


class Fitting(Struct, frozen=True, kw_only=True):
    """Where a resized image comes from and where it goes: `source` of the given image fills `height` x `width` pixels
    from `top`, `left` of the new one; what lies outside is border."""

    source: Region
    top: int
    left: int
    height: int
    width: int


def fitting(have: tuple[int, int], size: tuple[int, int], fit: Fit) -> Fitting:
    """Return how an image of `have` (height, width) goes into one of `size`. Whole pixels are covered: a letterbox
    rounds the size of what it holds, and centers it with the odd pixel of border behind."""
    height, width = size
    whole = Region(top=0.0, left=0.0, bottom=float(have[0]), right=float(have[1]))
    if fit == "letterbox":
        scale = min(height / have[0], width / have[1])
        inner = tuple(min(most, max(1, round(side * scale))) for side, most in zip(have, size, strict=True))
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        return Fitting(source=whole, top=top, left=left, height=inner[0], width=inner[1])
    if fit == "cover":
        scale = max(height / have[0], width / have[1])
        top_edge, left_edge = (have[0] - height / scale) / 2, (have[1] - width / scale) / 2
        source = Region(top=top_edge, left=left_edge, bottom=have[0] - top_edge, right=have[1] - left_edge)
        return Fitting(source=source, top=0, left=0, height=height, width=width)
    return Fitting(source=whole, top=0, left=0, height=height, width=width)


def resample(image: Image, box: Region, size: tuple[int, int], *, antialias: bool = True) -> Floats:
    """Return the part `box` of an image [height, width, ...] as float32 [*size, ...].

    Pixels are squares and sampled at their centers; beyond the image its edge goes on. With `antialias` the triangle of
    bilinear interpolation widens with the reduction, as in Pillow; without, it stays two pixels wide.
    """
    (height, width), (new_height, new_width) = image.shape[:2], size
    rows = _taps(height, box.top, box.bottom, new_height, antialias=antialias)
    columns = _taps(width, box.left, box.right, new_width, antialias=antialias)
    # Rows lie together in memory, so they go first unless the image between the two axes would become much larger.
    if new_height * width <= 4 * height * new_width:
        return _along(_along(image, 0, *rows), 1, *columns)
    return _along(_along(image, 1, *columns), 0, *rows)


def _taps(
    have: int, start: float, stop: float, count: int, *, antialias: bool
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return, for each of `count` new pixels along one axis, which pixels of `have` it is made of and how much of
    each; both [taps, count]."""
    scale = (stop - start) / count
    support = max(scale, 1.0) if antialias else 1.0
    centers = start + (np.arange(count) + 0.5) * scale
    first = np.floor(centers - support + 0.5).astype(np.intp)
    taps = first + np.arange(math.ceil(2 * support) + 1)[:, None]
    weights = np.maximum(0.0, 1.0 - np.abs(taps + 0.5 - centers) / support)
    if antialias:
        weights[(taps < 0) | (taps >= have)] = 0.0  # what is not there counts nothing; without it the edge goes on
    total = weights.sum(axis=0)
    used = weights.any(axis=1)
    return np.clip(taps, 0, have - 1)[used], (weights / np.where(total > 0, total, 1.0))[used].astype(np.float32)


def _along(image: Image, axis: int, taps: NDArray[np.intp], weights: NDArray[np.float32]) -> Floats:
    """Return an image of which each row along `axis` is a weighted sum of a few: a small product of matrices."""
    lead = np.ascontiguousarray(np.moveaxis(image, axis, 0))
    rows = lead.reshape(lead.shape[0], -1)
    made = np.empty((taps.shape[1], rows.shape[1]), np.float32)
    for index, row in enumerate(made):
        np.dot(weights[:, index], rows[taps[:, index]].astype(np.float32), out=row)
    return np.moveaxis(made.reshape(-1, *lead.shape[1:]), 0, axis)
