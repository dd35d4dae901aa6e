"""The order in which channels are least missed, by what their readers' outputs lose when the rest is refitted.

Here: arrays in, an order out. Removing a set of columns from a least-squares problem and refitting the others costs
w_u^T [(H^-1)_uu]^-1 w_u (optimal brain surgeon, Hassibi and Stork 1993; for groups of weights ZipLM, Kurtic et al.
2023, arXiv:2302.04089); the cheapest set goes first, and the inverse is updated instead of computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

DAMPING = 0.01
"""Added to the second moments' diagonal as a share of its mean: few samples must not look like certainty."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A layer that reads a site: `rows` [r, c], the second moments of its inputs about their mean [c, c], and the unit
    of each column."""

    rows: Array
    moments: Array
    units: Array


class _Problem:
    """One reader's least squares while columns leave it. Costs are shares of the squared outputs."""

    def __init__(self, reader: Reader) -> None:
        size = reader.moments.shape[0]
        mean = np.trace(reader.moments) / size
        self.rows = reader.rows.astype(np.float64)
        self._inverse = np.linalg.inv(reader.moments + (DAMPING * mean or 1.0) * np.eye(size))
        self._columns = {int(unit): np.flatnonzero(reader.units == unit) for unit in np.unique(reader.units)}
        energy = float(np.einsum("rc,cd,rd->", self.rows, reader.moments, self.rows, optimize=True))
        self._energy = energy or 1.0

    def costs(self, units: Array) -> Array:
        """Return what each unit's removal adds to the error."""
        found = np.zeros(units.size)
        widths = np.array([self._width(int(unit)) for unit in units])
        for width in np.unique(widths[widths > 0]):
            places = np.flatnonzero(widths == width)
            columns = np.stack([self._columns[int(unit)] for unit in units[places]])
            blocks = np.linalg.inv(self._inverse[columns[:, :, None], columns[:, None, :]])
            weights = self.rows[:, columns]  # [rows, units, width]
            found[places] = np.einsum("rua,uab,rub->u", weights, blocks, weights, optimize=True)
        return found / self._energy

    def remove(self, unit: int) -> None:
        """Take a unit's columns out and refit the others."""
        if not self._width(unit):
            return
        columns = self._columns.pop(unit)
        across = np.linalg.inv(self._inverse[np.ix_(columns, columns)]) @ self._inverse[columns]
        self.rows -= self.rows[:, columns] @ across
        self._inverse -= self._inverse[:, columns] @ across
        self.rows[:, columns] = 0.0
        self._inverse[columns] = self._inverse[:, columns] = 0.0

    def _width(self, unit: int) -> int:
        return self._columns[unit].size if unit in self._columns else 0


def removal_steps(
    units: Array, readers: Sequence[Reader], kept: Sequence[int]
) -> tuple[list[int], dict[int, tuple[Array, ...]]]:
    """Return the order in which units go until the smallest of `kept` remain, and, by how many remain, each reader's
    refitted rows for every number in `kept`; columns that are gone are zero."""
    problems = [_Problem(reader) for reader in readers]
    left = units.copy()
    order: list[int] = []
    states: dict[int, tuple[Array, ...]] = {}
    for remaining in range(units.size - 1, min(kept) - 1, -1):
        unit = int(left[np.argmin(sum(problem.costs(left) for problem in problems))])
        for problem in problems:
            problem.remove(unit)
        left = left[left != unit]
        order.append(unit)
        if remaining in kept:
            states[remaining] = tuple(problem.rows.copy() for problem in problems)
    return order, states
