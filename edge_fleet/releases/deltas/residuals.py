"""What is left of changed numbers once their old values are subtracted, split into byte planes that compress well."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def residual_planes(base: Bytes, target: Bytes, lane: int) -> Bytes:
    """Return the zigzag-coded residuals `target` - `base` as byte planes, uint8 [lane, lanes], lowest byte first.

    Both are as many bytes, lanes of `lane` bytes each, little-endian. See `edge_contracts.delta.Difference`.
    """
    unsigned, signed = np.dtype(f"<u{lane}"), np.dtype(f"<i{lane}")
    residual: NDArray[Any] = (target.view(unsigned) - base.view(unsigned)).view(signed)
    zigzag = (residual << 1) ^ (residual >> (8 * lane - 1))
    return byte_planes(zigzag.view(np.uint8), lane)


def byte_planes(data: Bytes, lane: int) -> Bytes:
    """Return bytes of `lane`-byte lanes as planes, uint8 [lane, lanes]."""
    return data.reshape(-1, lane).T


def entropy_bits(planes: Bytes) -> float:
    """Return the zero-order entropy of the planes, each with its own statistics, in bits."""
    total = 0.0
    for plane in planes:
        counts = np.bincount(plane, minlength=256)
        present = counts[counts > 0]
        total -= float(present @ np.log2(present / plane.size))
    return total
