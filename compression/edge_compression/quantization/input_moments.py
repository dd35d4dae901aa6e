"""Second moments of the inputs of convolutions and matrix products, summed over calibration samples as they stream.

Here: a layer's weights as rows over the inputs they see, those inputs taken out of an activation, and sums of their
outer products. A layer's memory is one matrix a group; how many layers are summed at a time is the pass's business.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_compression.onnx_tools.graph import attributes

Array = NDArray[Any]

MAX_POSITIONS = 2048
"""Positions of a convolution taken from one sample, evenly spaced: neighbors tell the same, memory stays small."""


def as_rows(node: Any, weights: Array) -> Array:
    """Return a layer's weights as [groups, rows, columns]: a row makes one output channel from `columns` inputs."""
    if node.op_type == "Conv":
        groups = attributes(node).get("group", 1)
        return weights.reshape(groups, weights.shape[0] // groups, -1)
    return (weights if _transposed(node) else weights.T)[None]


def from_rows(node: Any, rows: Array, shape: tuple[int, ...]) -> Array:
    """Return weights of the layer's own shape from rows: the inverse of `as_rows`."""
    if node.op_type == "Conv" or _transposed(node):
        return rows.reshape(shape)
    return np.ascontiguousarray(rows[0].T)


def _transposed(node: Any) -> bool:
    return node.op_type == "Gemm" and attributes(node).get("transB", 0) == 1


def supported(node: Any, weights: Array) -> bool:
    """Return whether `inputs` can take this layer's inputs out of an activation."""
    if node.op_type == "Gemm":
        return not attributes(node).get("transA", 0)
    return node.op_type == "Conv" or weights.ndim == 2


def _spread(shape: tuple[int, ...], most: int) -> tuple[Array, ...]:
    count = math.prod(shape)
    flat = np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.intp))
    return np.unravel_index(flat, shape)


def padding(known: dict[str, Any], sizes: tuple[int, ...], reach: list[int], strides: list[int]) -> list[Any]:
    """Return (before, after) for each spatial axis, as the ONNX specification of Conv has it."""
    automatic = known.get("auto_pad", b"NOTSET")
    if automatic in (b"NOTSET", b"VALID"):
        pads = known.get("pads") or [0] * (2 * len(reach))
        return list(zip(pads[: len(reach)], pads[len(reach) :], strict=True))
    found = []
    for size, extent, step in zip(sizes, reach, strides, strict=True):
        total = max(0, (math.ceil(size / step) - 1) * step + extent - size)
        less, more = total // 2, total - total // 2
        found.append((less, more) if automatic == b"SAME_UPPER" else (more, less))
    return found


def add_moments(total: Array, taken: Array) -> None:
    """Add the outer products of `taken` [groups, positions, columns] to `total` [groups, columns, columns]."""
    total += taken.swapaxes(1, 2) @ taken


def inputs(node: Any, weights: Array, values: Array, *, positions: int = MAX_POSITIONS) -> Array:
    """Return what the layer's rows are multiplied with, [groups, positions, columns] float32, from its activation; of a
    convolution's positions at most so many."""
    if node.op_type != "Conv":
        return values.reshape(1, -1, values.shape[-1]).astype(np.float32, copy=False)
    known = attributes(node)
    kernel, groups = weights.shape[2:], known.get("group", 1)
    strides = known.get("strides") or [1] * len(kernel)
    dilations = known.get("dilations") or [1] * len(kernel)
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    pads = padding(known, values.shape[2:], reach, strides)
    padded = np.pad(values, [(0, 0), (0, 0), *pads])
    axes = tuple(range(2, values.ndim))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=axes)
    steps = (slice(None), slice(None), *(slice(None, None, step) for step in (*strides, *dilations)))
    windows = windows[steps]
    chosen: tuple[Any, ...] = (slice(None), slice(None), *_spread(windows.shape[2 : 2 + len(kernel)], positions))
    taken = windows[chosen]  # [batch, channels, positions, *kernel]
    batch, channels, places = taken.shape[:3]
    grouped = taken.reshape(batch, groups, channels // groups, places, math.prod(kernel))
    columns = channels // groups * math.prod(kernel)
    return grouped.transpose(1, 0, 3, 2, 4).reshape(groups, batch * places, columns).astype(np.float32, copy=False)
