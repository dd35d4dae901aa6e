"""Low-rank factors of a matrix that change a layer's outputs least, for the inputs it really gets.

Here: arrays in, factors out. With the inputs' second moments M = L L^T the squared change of the outputs is
|(W - B A) L|^2, so the best factors of rank r are those of the truncated singular value decomposition of W L, with L
taken off again (Eckart and Young 1936 in the metric of the data; as in SVD-LLM, Wang et al. 2024, arXiv:2403.07378).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

DAMPING = 1e-4
"""Added to the second moments' diagonal as a share of its mean, so that inputs never seen keep their weights nearly."""


def factors(rows: Array, moments: Array) -> tuple[Array, Array, Array]:
    """Return (B [r, k], A [k, c], losses [k]): the first n columns of B and rows of A are the best factors of rank n,
    and losses[n - 1] is what they lose of the squared outputs, as a share. `rows` [r, c], `moments` [c, c]."""
    size = moments.shape[0]
    damped = moments + (DAMPING * np.trace(moments) / size or 1.0) * np.eye(size)
    root = np.linalg.cholesky(damped)
    left, values, right = np.linalg.svd(rows @ root, full_matrices=False)
    energy = np.square(values)
    losses = 1.0 - np.cumsum(energy) / (energy.sum() or 1.0)
    return left * values, np.linalg.solve(root.T, right.T).T, losses


def smallest_rank(losses: Array, allowed: float) -> int:
    """Return the lowest rank that loses no more than allowed, at least one."""
    return int(np.argmax(losses <= allowed)) + 1 if np.any(losses <= allowed) else losses.size
