"""Numbers into the dtype that a tensor has: rounded and kept within its range, instead of wrapped around."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def cast(x: Array, dtype: np.dtype[Any]) -> Array:
    """Return numbers in `dtype`; integers are rounded to the nearest, ties to even, and saturate."""
    if dtype.kind in "iu" and not np.can_cast(x.dtype, dtype):
        bounds = np.iinfo(dtype)
        # float64 rounds the largest 64-bit integers up, out of range: stay below.
        high = np.nextafter(float(bounds.max), 0.0) if dtype.itemsize == 8 else float(bounds.max)
        x = np.clip(np.rint(x.astype(np.float64)), float(bounds.min), high)
    return x.astype(dtype, copy=False)
