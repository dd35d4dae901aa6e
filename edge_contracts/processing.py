"""Declared processing of samples: the steps that turn what a camera or a microphone gives into what a model takes.

The steps are data in the manifest; here is what they mean for shapes, so that a release whose steps do not lead from
its samples to its model is refused before it is signed. Their arithmetic is in `edge_agent.processing`; steps behind
the model are in `edge_contracts.answering`.

Steps forbid fields they do not know: a step understood in part is another step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta

from edge_contracts import limits
from edge_contracts.codec import StrictRecord
from edge_contracts.errors import ContractError

Side = Annotated[int, Meta(ge=1, le=limits.MAX_SIDE)]
Extent = Annotated[int, Meta(ge=1, le=limits.MAX_STEP_ELEMENTS)]
Offset = Annotated[int, Meta(ge=0, le=limits.MAX_SIDE)]
Axis = Annotated[int, Meta(ge=0, le=limits.MAX_RANK - 1)]
Rank = Meta(min_length=1, max_length=limits.MAX_RANK - 1)
Hertz = Annotated[float, Meta(gt=0.0, le=1e9)]
Fit = Literal["stretch", "letterbox", "cover"]

ANY = -1
"""A dimension of any size."""

Shape = tuple[int, ...]


class Crop(StrictRecord, frozen=True, kw_only=True, tag_field="step", tag="crop"):
    """A rectangle of an image [height, width, ...]; without `top` or `left` it lies in the middle. Keeps the dtype."""

    height: Side
    width: Side
    top: Offset | None = None
    left: Offset | None = None


class Resize(StrictRecord, frozen=True, kw_only=True, tag_field="step", tag="resize"):
    """An image [height, width, ...] in another size, bilinear, in float32.

    `stretch` ignores its proportions; `letterbox` keeps them and fills the borders with `fill`, in the sample's own
    numbers; `cover` keeps them and leaves out what lies outside, evenly. With `antialias` every source pixel counts
    when an image becomes smaller, as in Pillow; without it only four do, as in OpenCV.
    """

    height: Side
    width: Side
    fit: Fit = "stretch"
    antialias: bool = True
    fill: float = 0.0


class Channels(StrictRecord, frozen=True, kw_only=True, tag_field="step", tag="channels"):
    """The last axis `reversed` (RGB becomes BGR), or three channels as one of `grey` (ITU-R BT.601) in float32."""

    to: Literal["reversed", "grey"]


class Normalize(StrictRecord, frozen=True, kw_only=True, tag_field="step", tag="normalise"):
    """(x - mean) / std along the last axis in float32: one number for all, or one for each of its elements."""

    mean: Annotated[tuple[float, ...], Meta(min_length=1, max_length=limits.MAX_BANDS)]
    std: Annotated[tuple[Annotated[float, Meta(gt=0.0)], ...], Meta(min_length=1, max_length=limits.MAX_BANDS)]


class Transpose(StrictRecord, frozen=True, kw_only=True, tag_field="step", tag="transpose"):
    """The axes of one sample in another order, as in NumPy: [2, 0, 1] makes [height, width, channel] channels first."""

    axes: Annotated[tuple[Axis, ...], Rank]


class Reshape(StrictRecord, frozen=True, kw_only=True, tag_field="step", tag="reshape"):
    """The same elements of one sample in another shape."""

    shape: Annotated[tuple[Extent, ...], Rank]


class Frames(StrictRecord, frozen=True, kw_only=True, tag_field="step", tag="frames"):
    """A series [time, ...] cut into overlapping windows [frames, length, ...]; what fills no window is left out."""

    length: Extent
    hop: Extent


class Mel(StrictRecord, frozen=True, kw_only=True, tag_field="step", tag="mel"):
    """A sound [time] as the logarithm of its energy in bands of hearing [frames, bands], in float32; as cepstral
    coefficients (MFCC) [frames, coefficients] where those are asked for.

    Hann windows of `length` every `hop`, magnitudes of a Fourier transform of `fft` points to the `power`, triangles
    even on the mel scale between `low_hz` and `high_hz`, ln(x + floor), DCT-II with factor sqrt(2 / bands). These are
    the formulas of tf.signal, with which the common keyword models were trained.
    """

    rate_hz: Hertz
    length: Annotated[int, Meta(ge=2, le=limits.MAX_FFT)]
    hop: Extent
    fft: Annotated[int, Meta(ge=2, le=limits.MAX_FFT)]
    bands: Annotated[int, Meta(ge=1, le=limits.MAX_BANDS)]
    low_hz: Annotated[float, Meta(ge=0.0)] = 20.0
    high_hz: Hertz = 4000.0
    power: Literal[1, 2] = 1
    floor: Annotated[float, Meta(gt=0.0)] = 1e-6
    coefficients: Annotated[int, Meta(ge=1, le=limits.MAX_BANDS)] | None = None


Step = Crop | Resize | Channels | Normalize | Transpose | Reshape | Frames | Mel
Steps = Annotated[tuple[Step, ...], Meta(max_length=limits.MAX_STEPS)]


def shape_after(shape: Shape, steps: Sequence[Step], what: str = "steps") -> Shape:
    """Return the shape of one sample, without the batch, after all steps; `ANY` where it is not known.

    Raises ContractError naming the step that does not fit, or whose result is over `limits.MAX_STEP_ELEMENTS`.
    """
    for index, step in enumerate(steps):
        subject = f"{what}[{index}]"
        shape = _RULES[type(step)](step, shape, subject)
        if math.prod(max(size, 1) for size in shape) > limits.MAX_STEP_ELEMENTS:
            raise ContractError(f"more than {limits.MAX_STEP_ELEMENTS} elements: {list(shape)}", subject=subject)
    return shape


def frames(time: int, length: int, hop: int, what: str) -> int:
    """Return how many whole windows fit. Raises ContractError if none does or the length of the series is open."""
    if time == ANY:
        raise ContractError("needs a series of known length", subject=what)
    if time < length:
        raise ContractError(f"windows of {length} in a series of {time}", subject=what)
    return 1 + (time - length) // hop


def _image(shape: Shape, what: str) -> tuple[int, int]:
    if len(shape) < 2:
        raise ContractError(f"takes an image [height, width, ...], not {list(shape)}", subject=what)
    if max(shape[:2]) > limits.MAX_SIDE:
        raise ContractError(f"an image of {list(shape[:2])}, over {limits.MAX_SIDE} along a side", subject=what)
    return shape[0], shape[1]


def _crop(step: Crop, shape: Shape, what: str) -> Shape:
    height, width = _image(shape, what)
    for have, start, size in ((height, step.top, step.height), (width, step.left, step.width)):
        if have != ANY and (start or 0) + size > have:
            raise ContractError(f"{size} from {start or 0} of {have}", subject=what)
    return (step.height, step.width, *shape[2:])


def _resize(step: Resize, shape: Shape, what: str) -> Shape:
    _image(shape, what)
    return (step.height, step.width, *shape[2:])


def _channels(step: Channels, shape: Shape, what: str) -> Shape:
    if step.to == "reversed":
        return shape
    if not shape or shape[-1] != 3:
        raise ContractError(f"grey needs three channels on the last axis, not of {list(shape)}", subject=what)
    return (*shape[:-1], 1)


def _normalize(step: Normalize, shape: Shape, what: str) -> Shape:
    last = shape[-1] if shape else 1
    for count in (len(step.mean), len(step.std)):
        if count not in (1, last):
            raise ContractError(f"{count} numbers for a last axis of {last}", subject=what)
    return shape


def _transpose(step: Transpose, shape: Shape, what: str) -> Shape:
    if sorted(step.axes) != list(range(len(shape))):
        raise ContractError(f"{list(step.axes)} are not the axes of {list(shape)}", subject=what)
    return tuple(shape[axis] for axis in step.axes)


def _reshape(step: Reshape, shape: Shape, what: str) -> Shape:
    if ANY in shape or math.prod(shape) != math.prod(step.shape):
        raise ContractError(f"{list(shape)} cannot become {list(step.shape)}", subject=what)
    return step.shape


def _frames(step: Frames, shape: Shape, what: str) -> Shape:
    if not shape:
        raise ContractError("takes a series [time, ...]", subject=what)
    return (frames(shape[0], step.length, step.hop, what), step.length, *shape[1:])


def _mel(step: Mel, shape: Shape, what: str) -> Shape:
    if len(shape) != 1:
        raise ContractError(f"takes a sound [time], not {list(shape)}", subject=what)
    if step.fft < step.length:
        raise ContractError(f"a window of {step.length} in a transform of {step.fft} points", subject=what)
    if not step.low_hz < step.high_hz <= step.rate_hz / 2:
        raise ContractError("asks for low_hz < high_hz <= rate_hz / 2", subject=what)
    if step.coefficients is not None and step.coefficients > step.bands:
        raise ContractError(f"{step.coefficients} coefficients of {step.bands} bands", subject=what)
    count = frames(shape[0], step.length, step.hop, what)
    if count * step.fft > limits.MAX_STEP_ELEMENTS:
        raise ContractError(f"{count} windows of {step.fft} points are too many", subject=what)
    return (count, step.coefficients or step.bands)


_RULES: dict[type[Any], Callable[[Any, Shape, str], Shape]] = {
    Crop: _crop,
    Resize: _resize,
    Channels: _channels,
    Normalize: _normalize,
    Transpose: _transpose,
    Reshape: _reshape,
    Frames: _frames,
    Mel: _mel,
}
