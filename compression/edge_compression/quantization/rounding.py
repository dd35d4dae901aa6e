"""Second-order weight rounding, the numerical part: which integers change a layer's outputs least.

Here: arrays in, integers out. Rounding every weight to the nearest value is best for each weight, not for their sum:
what one is rounded up another can take back where their inputs are correlated. Measuring the inputs is in `moments`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

DAMPING = 0.01
"""Added to the second moments' diagonal as a share of its mean: few samples must not look like certainty."""

BLOCK = 64
"""Columns whose corrections are applied to the later ones in a single matrix product."""


def compensated(weights: Array, moments: Array, *, scale: Array, limit: int, damping: float = DAMPING) -> Array:
    """Return integers q, |q| <= limit, for which the layer's output with `scale * q` differs little from `weights`.

    `weights` [groups, rows, columns]; `moments` [groups, columns, columns], the sums of x x^T over the inputs x of a
    row; `scale` broadcasts against [groups, rows]. One column after another is rounded, those of the strongest
    inputs first, and the error is moved into the columns still to come as the least squares of the outputs say
    (optimal brain quantization, Frantar and Alistarh 2022, arXiv:2208.11580, in the order and form of GPTQ, Frantar
    et al. 2022, arXiv:2210.17323).
    """
    order = np.argsort(-np.einsum("gii->i", moments), kind="stable")
    left = np.take(weights.astype(np.float64), order, axis=2)
    factor = _inverse_factor(moments[:, order][:, :, order].astype(np.float64), damping)
    steps = np.broadcast_to(np.asarray(scale, np.float64), left.shape[:2])
    result = np.zeros(left.shape, dtype=np.int64)
    columns = left.shape[2]
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        errors = np.zeros((*left.shape[:2], stop - start))
        for column in range(start, stop):
            result[:, :, column] = np.clip(np.rint(left[:, :, column] / steps), -limit, limit)
            gap = left[:, :, column] - result[:, :, column] * steps
            error = gap / factor[:, column, column, None]
            left[:, :, column:stop] -= error[:, :, None] * factor[:, None, column, column:stop]
            errors[:, :, column - start] = error
        left[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    return np.take(result, np.argsort(order), axis=2)


def _inverse_factor(moments: Array, damping: float) -> Array:
    """Return upper triangular U with U^T U = (moments + damping)^-1: row i holds what rounding column i costs later."""
    size = moments.shape[1]
    diagonal = np.arange(size)
    mean = moments[:, diagonal, diagonal].mean(axis=1)
    # An input that is always zero leaves no say in its weight; one keeps the matrix regular and the weight its own.
    moments[:, diagonal, diagonal] += np.where(mean > 0, damping * mean, 1.0)[:, None]
    inverse = np.linalg.inv(moments)
    return np.asarray(np.linalg.cholesky((inverse + inverse.swapaxes(1, 2)) / 2).swapaxes(1, 2))


def output_error(difference: Array, moments: Array) -> float:
    """Return the summed squared change of all outputs that `difference` [groups, rows, columns] of weights makes."""
    return float(np.einsum("grc,gcd,grd->", difference, moments, difference, optimize=True))
