"""Carrying out the steps before a model, sample by sample, and where a point of the model's image was in the sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_agent.processing.audio import mel, windows
from edge_agent.processing.resampling import fitting, resample
from edge_contracts.processing import (
    Channels,
    Crop,
    Frames,
    Mel,
    Normalize,
    Reshape,
    Resize,
    Step,
    Transpose,
    shape_after,
)

Array = NDArray[Any]

GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in brightness, ITU-R BT.601."""


def apply_steps(batch: Array, steps: Sequence[Step]) -> Array:
    """Return a batch of samples [N, ...] after all steps. Raises ContractError naming a step that does not fit."""
    shape_after(batch.shape[1:], steps)
    return np.stack([_apply(sample, steps) for sample in batch])


def _apply(sample: Array, steps: Sequence[Step]) -> Array:
    for step in steps:
        sample = _ACTS[type(step)](sample, step)
    return sample


class Placement(Struct, frozen=True, kw_only=True):
    """Where the model's image lies in the one that was sent, both from 0 to 1: x_sent = left + x * width."""

    top: float = 0.0
    left: float = 0.0
    height: float = 1.0
    width: float = 1.0


def placement(shape: Sequence[int], steps: Sequence[Step]) -> Placement:
    """Return where the image that the steps make of a sample of `shape` lies in it. Steps that neither crop nor resize
    leave it where it was."""
    size: tuple[int, ...] = tuple(shape)
    top = left = 0.0
    pixel = (1.0, 1.0)  # size of a pixel of the present image, in pixels of the sample
    sent: tuple[int, int] | None = None
    for step in steps:
        if isinstance(step, Crop | Resize) and sent is None:
            sent = (size[0], size[1])
        if isinstance(step, Crop):
            start = _corner(step, size)
            top, left = top + start[0] * pixel[0], left + start[1] * pixel[1]
        elif isinstance(step, Resize):
            fits = fitting((size[0], size[1]), (step.height, step.width), step.fit)
            box = fits.source
            down, across = (box.bottom - box.top) / fits.height, (box.right - box.left) / fits.width
            top += (box.top - fits.top * down) * pixel[0]
            left += (box.left - fits.left * across) * pixel[1]
            pixel = (pixel[0] * down, pixel[1] * across)
        size = shape_after(size, [step])
        if sent is not None and isinstance(step, Crop | Resize):
            made = (size[0], size[1])
    if sent is None:
        return Placement()
    return Placement(
        top=top / sent[0],
        left=left / sent[1],
        height=made[0] * pixel[0] / sent[0],
        width=made[1] * pixel[1] / sent[1],
    )


def _corner(step: Crop, size: Sequence[int]) -> tuple[int, int]:
    top = (size[0] - step.height) // 2 if step.top is None else step.top
    left = (size[1] - step.width) // 2 if step.left is None else step.left
    return top, left


def _crop(sample: Array, step: Crop) -> Array:
    top, left = _corner(step, sample.shape)
    return sample[top : top + step.height, left : left + step.width]


def _resize(sample: Array, step: Resize) -> Array:
    fits = fitting((sample.shape[0], sample.shape[1]), (step.height, step.width), step.fit)
    inner = resample(sample, fits.source, (fits.height, fits.width), antialias=step.antialias)
    if (fits.height, fits.width) == (step.height, step.width):
        return inner
    made = np.full((step.height, step.width, *sample.shape[2:]), step.fill, np.float32)
    made[fits.top : fits.top + fits.height, fits.left : fits.left + fits.width] = inner
    return made


def _channels(sample: Array, step: Channels) -> Array:
    if step.to == "reversed":
        return sample[..., ::-1]
    return np.asarray(sample.astype(np.float32) @ np.array(GREY, np.float32)[:, None])


def _normalize(sample: Array, step: Normalize) -> Array:
    return (sample.astype(np.float32) - np.array(step.mean, np.float32)) / np.array(step.std, np.float32)


_ACTS: dict[type[Any], Callable[[Array, Any], Array]] = {
    Crop: _crop,
    Resize: _resize,
    Channels: _channels,
    Normalize: _normalize,
    Transpose: lambda sample, step: sample.transpose(step.axes),
    Reshape: lambda sample, step: sample.reshape(step.shape),
    Frames: lambda sample, step: windows(sample, step.length, step.hop),
    Mel: mel,
}
