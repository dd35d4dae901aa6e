"""Augmentation of samples for training: what the original answers to them is the truth, so they need not be likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """`mixtures`: share of samples that are mixed with another one; `shift`: by at most this share of its length a
    sample is moved along each of its axes, its border repeated. An axis too short to be moved by one stays as it is,
    so channels mostly do, and so do samples with one axis only, whose places have no neighbors."""

    mixtures: float
    shift: float

    def of(self, x: Array, random: np.random.Generator) -> Array:
        """Return a batch [N, ...] varied; samples that are not of floats, such as tokens, come back as they are."""
        if not np.issubdtype(x.dtype, np.floating):
            return np.ascontiguousarray(x)
        return np.ascontiguousarray(_mixed(self._shifted(x, random), self.mixtures, random))

    def _shifted(self, x: Array, random: np.random.Generator) -> Array:
        for axis in range(1, x.ndim if x.ndim > 2 else 1):
            size = x.shape[axis]
            furthest = int(self.shift * size)
            if furthest:
                moves = random.integers(-furthest, furthest + 1, (len(x), 1))
                places = np.clip(np.arange(size) + moves, 0, size - 1)
                others = [other for other in range(1, x.ndim) if other != axis]
                x = np.take_along_axis(x, np.expand_dims(places, others), axis)
        return x


def _mixed(x: Array, share: float, random: np.random.Generator) -> Array:
    each = (len(x), *(1,) * (x.ndim - 1))
    own = np.where(random.random(each) < share, random.random(each), 1.0).astype(x.dtype)
    return own * x + (1 - own) * x[random.permutation(len(x))]
