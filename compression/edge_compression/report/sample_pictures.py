"""How a sample is shown to a person: an image as a small PNG, signals as lines, other numbers as text. Pure, and of the
standard library: a picture of 96 pixels needs no imaging library.
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_contracts.codec import StrictRecord

Array = NDArray[Any]

MOST_PIXELS = 96
"""Pixels of a picture's longer side."""

LEAST_SIDE = 10
"""Rows and columns below which an array is no image but some signals."""

MOST_SIGNALS, LEAST_STEPS, COLUMNS = 9, 32, 150
"""Signals drawn over one another, steps from which numbers are one, and columns of the drawing."""

WIDTH, HEIGHT = 150.0, 60.0
"""Size of a drawing of signals, in SVG units."""

NUMBERS = 10
"""Numbers of another sample that are written out."""


class SampleView(StrictRecord, frozen=True, kw_only=True):
    """One sample as it is shown. `png` is a picture in base64, of `width` by `height` pixels; `lines` are points of SVG
    polylines; `text` says what it is, with its range in the data's own numbers."""

    kind: Literal["image", "signals", "numbers"]
    text: str
    png: str = ""
    width: int = 0
    height: int = 0
    lines: tuple[str, ...] = ()


def view(sample: Array, *, whole: bool = False) -> SampleView:
    """Return how one sample is shown. `whole`: it is a sequence of steps that are shown one after the other."""
    array = np.asarray(sample)
    if array.dtype.kind not in "iufb":
        return SampleView(kind="numbers", text=str(array.reshape(-1)[:1].tolist())[:80])
    numbers = np.nan_to_num(array.astype(np.float64), posinf=0.0, neginf=0.0)
    if whole:
        numbers = numbers.reshape(-1)
    pixels = None if whole else _pixels(numbers)
    if pixels is not None:
        return _image(pixels, array)
    signals = _signals(numbers)
    if signals is not None and array.dtype.kind != "b":
        return _drawn(signals, array)
    shown = ", ".join(f"{value:.4g}" for value in array.reshape(-1)[:NUMBERS].tolist())
    more = ", ..." if array.size > NUMBERS else ""
    return SampleView(kind="numbers", text=f"{shown}{more}")


def _pixels(numbers: Array) -> Array | None:
    """Return an image as [H, W] or [H, W, 3], None if it is none. Channels may be first or last."""
    squeezed = numbers.reshape([size for size in numbers.shape if size != 1]) if numbers.ndim != 2 else numbers
    if squeezed.ndim == 3 and squeezed.shape[0] in (3, 4) and min(squeezed.shape[1:]) >= LEAST_SIDE:
        squeezed = np.moveaxis(squeezed, 0, -1)
    if squeezed.ndim == 3 and squeezed.shape[-1] in (3, 4):
        squeezed = squeezed[..., :3]
    elif squeezed.ndim != 2:
        return None
    return squeezed if min(squeezed.shape[:2]) >= LEAST_SIDE else None


def _image(pixels: Array, given: Array) -> SampleView:
    step = max(1, -(-max(pixels.shape[:2]) // MOST_PIXELS))
    small = pixels[::step, ::step]
    low, high = (0.0, 255.0) if given.dtype == np.uint8 else (float(small.min()), float(small.max()))
    scaled = np.clip((small - low) / ((high - low) or 1.0) * 255.0, 0, 255).astype(np.uint8)
    size = " x ".join(str(one) for one in given.shape)
    text = f"{size}, {_range(given)}"
    height, width = int(pixels.shape[0]), int(pixels.shape[1])
    return SampleView(kind="image", text=text, png=_png(scaled), width=width, height=height)


def _png(pixels: Array) -> str:
    """Return 8-bit pixels [H, W] or [H, W, 3] as a PNG file in base64 (ISO/IEC 15948)."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + np.ascontiguousarray(row).tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    made = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + made).decode()


def _signals(numbers: Array) -> Array | None:
    """Return signals as [signals, steps], None if they are none: the longest axis is that of steps."""
    squeezed = numbers.reshape([size for size in numbers.shape if size != 1])
    if squeezed.ndim == 1:
        squeezed = squeezed[None]
    if squeezed.ndim != 2:
        return None
    if squeezed.shape[0] > squeezed.shape[1]:
        squeezed = squeezed.T
    fits = squeezed.shape[0] <= MOST_SIGNALS and squeezed.shape[1] >= LEAST_STEPS
    return squeezed if fits else None


def _drawn(signals: Array, given: Array) -> SampleView:
    low, high = float(signals.min()), float(signals.max())
    scale = (HEIGHT - 2.0) / ((high - low) or 1.0)
    lines = tuple(_polyline(row, low, scale) for row in signals)
    text = f"{signals.shape[0]} x {signals.shape[1]} steps, {_range(given)}"
    return SampleView(kind="signals", text=text, lines=lines, width=int(WIDTH), height=int(HEIGHT))


def _polyline(row: Array, low: float, scale: float) -> str:
    """Return the points of a line; of many steps the least and the largest of each column, so that no peak is lost."""
    columns = np.array_split(row, min(COLUMNS, row.size))
    points = []
    for place, column in enumerate(columns):
        x = place * WIDTH / max(1, len(columns) - 1)
        ends = (column[0],) if column.size == 1 else (column.min(), column.max())
        points += [f"{x:.1f},{HEIGHT - 1.0 - (value - low) * scale:.1f}" for value in ends]
    return " ".join(points)


def _range(given: Array) -> str:
    numbers = np.nan_to_num(given.astype(np.float64))
    return f"{given.dtype.name} {numbers.min():.4g} to {numbers.max():.4g}"
