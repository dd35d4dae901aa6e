"""What lies between the models of a pipeline: cutting boxes out of an image, and several answers as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.processing.casting import cast
from edge_agent.processing.resampling import Region, resample

Array = NDArray[Any]


def crop_boxes(images: Array, boxes: Array, size: tuple[int, int], *, margin: float) -> Array:
    """Return what boxes show of images as [batch, most, *size, channels] in the images' dtype, zero for boxes without
    area.

    `images` [batch, height, width, channels]; `boxes` [batch, most, 4] as x1, y1, x2, y2 between 0 and 1, which grow on
    each side by `margin` times their own width or height, but not beyond the image.
    """
    made = np.zeros((*boxes.shape[:2], *size, images.shape[3]), images.dtype)
    for image, own, places in zip(images, boxes, made, strict=True):
        height, width = image.shape[:2]
        for place, (x1, y1, x2, y2) in enumerate(own.astype(np.float64)):
            more_x, more_y = (x2 - x1) * margin, (y2 - y1) * margin
            left, right = np.clip([x1 - more_x, x2 + more_x], 0.0, 1.0) * width
            top, bottom = np.clip([y1 - more_y, y2 + more_y], 0.0, 1.0) * height
            if right > left and bottom > top:
                box = Region(top=float(top), left=float(left), bottom=float(bottom), right=float(right))
                places[place] = cast(resample(image, box, size), images.dtype)
    return made


def mean(answers: Sequence[Array]) -> Array:
    """Return the mean of answers of one shape, in float32. Raises ValueError for answers of several."""
    if len({answer.shape for answer in answers}) != 1:
        raise ValueError(f"answers of different shapes: {[answer.shape for answer in answers]}")
    return np.asarray(np.mean(answers, axis=0, dtype=np.float64), dtype=np.float32)


def votes(answers: Sequence[Array]) -> Array:
    """Return for each class, along the last axis, the share of answers that hold it for the likeliest, in float32.

    Raises ValueError for answers of different shapes."""
    chosen = [np.argmax(answer, axis=-1)[..., None] == np.arange(answer.shape[-1]) for answer in answers]
    return mean([one.astype(np.float32) for one in chosen])


def slide(past: Array, new: Array) -> Array:
    """Return a window [1, rows, ...] after a step: its rows and those of `new`, the oldest left out. `new` is any array
    of whole rows. Raises ValueError for one that is not."""
    rows = new.reshape(1, -1, *past.shape[2:])
    return np.concatenate([past, rows], axis=1)[:, -past.shape[1] :]
