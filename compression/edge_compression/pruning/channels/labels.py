"""Channel labels: every element of a tensor has one, and elements of the same label can only be removed together.

A disjoint-set forest over integers. Label 0 means "stays": whatever is joined with it stays too. Label arrays have the
shape of their tensor; along axes where nothing differs they are views of stride 0, so that an activation's labels take
the memory of its channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
STAYS = 0


class ChannelLabels:
    """The sets of labels. `changes` counts the unions made, so that a fixed point can be noticed."""

    def __init__(self) -> None:
        self._parent = np.zeros(1, dtype=np.int64)
        self.changes = 0

    def fresh(self, shape: tuple[int, ...]) -> Array:
        """Return an array of labels that were never given before."""
        count = int(np.prod(shape, dtype=np.int64))
        first = self._parent.size
        made = np.arange(first, first + count)
        self._parent = np.concatenate([self._parent, made])
        return made.reshape(shape)

    def roots(self, labels: Array) -> Array:
        """Return what stands for the set of each label; the smallest of the set, so that 0 stands for all that stays.
        Axes of stride 0 keep it."""
        self._flatten()
        return np.broadcast_to(self._parent[essential(labels)], labels.shape)

    def join(self, a: Array, b: Array) -> None:
        """Make the labels of each pair of elements of two arrays, broadcast against each other, one set."""
        slim, wide = np.broadcast_arrays(essential(a), essential(b))
        pairs = np.stack([self.roots(slim).ravel(), self.roots(wide).ravel()])
        for one, other in np.unique(pairs[:, pairs[0] != pairs[1]], axis=1).T.tolist():
            low, high = sorted((self._root(one), self._root(other)))
            self._parent[high] = low
            self.changes += low != high

    def freeze(self, labels: Array) -> None:
        """Let every element stay, and with it all of its set."""
        self.join(labels, np.zeros((1,) * labels.ndim, dtype=np.int64))

    def merge_along(self, labels: Array, axes: tuple[int, ...]) -> None:
        """Make one set of all elements that differ only in their place along these axes."""
        slim = essential(labels)
        first = slim[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(slim.ndim))]
        self.join(slim, first)

    def varying(self, labels: Array) -> tuple[int, ...]:
        """Return the axes along which neighbors are of different sets."""
        slim = self.roots(essential(labels))
        return tuple(axis for axis in range(slim.ndim) if np.any(np.diff(slim, axis=axis)))

    def _root(self, label: int) -> int:
        while self._parent[label] != label:
            label = int(self._parent[label])
        return label

    def _flatten(self) -> None:
        while True:
            shorter = self._parent[self._parent]
            if np.array_equal(shorter, self._parent):
                return
            self._parent = shorter


def essential(labels: Array) -> Array:
    """Return the array with one element along the axes where it merely repeats itself."""
    steps = zip(labels.strides, labels.shape, strict=True)
    return labels[tuple(slice(0, 1) if step == 0 and size > 0 else slice(None) for step, size in steps)]
