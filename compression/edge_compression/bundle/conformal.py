"""Split-conformal thresholds of one variant, calibrated on some labeled samples and checked on others.

The scores are those of the device, `edge_agent.inference.conformal`. Pure arithmetic over answers; which samples are
used is decided in `answer_statistics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.inference.conformal import lac, raps, threshold_of
from edge_contracts.reference import ConformalThreshold

Array = NDArray[Any]
Floats = NDArray[np.float64]

ALPHAS = (0.1, 0.05)
"""Error rates thresholds are made for: one in ten and one in twenty."""

PENALTY, FREE_RANKS = 0.01, 2
"""RAPS's lambda and k_reg: small enough to leave sets of sure models alone (Angelopoulos et al. 2021, section 3)."""


@dataclass(frozen=True, kw_only=True)
class Labeled:
    """One variant's answers with the truth, cut in two: `calibrate` marks the samples that set thresholds, the others
    check them. `answers` are class probabilities [N, C] with `y` [N], or values with targets of the same size."""

    answers: Floats
    y: Array
    calibrate: NDArray[np.bool_]


def classification(data: Labeled, model_sha256: str) -> tuple[ConformalThreshold, ...]:
    """Return the LAC and RAPS thresholds that the samples suffice for."""
    made = []
    regularised = raps(data.answers, penalty=PENALTY, free_ranks=FREE_RANKS)
    for name, scores, penalty, free in (
        ("lac", lac(data.answers), 0.0, 0),
        ("raps", regularised, PENALTY, FREE_RANKS),
    ):
        own = scores[np.arange(data.y.size), data.y.reshape(-1)]
        for alpha in ALPHAS:
            tau = threshold_of(own[data.calibrate], alpha)
            if tau is None:
                continue
            inside = scores[~data.calibrate] <= tau
            made.append(
                ConformalThreshold(
                    score=name,  # type: ignore[arg-type]
                    alpha=alpha,
                    tau=tau,
                    samples=int(data.calibrate.sum()),
                    model_sha256=model_sha256,
                    penalty=penalty,
                    free_ranks=free,
                    **_checked(own[~data.calibrate] <= tau, inside.sum(axis=1)),
                )
            )
    return tuple(made)


def regression(data: Labeled, model_sha256: str) -> tuple[ConformalThreshold, ...]:
    """Return the thresholds of absolute residuals; a sample's score is its largest over the outputs."""
    residuals = np.abs(data.answers - data.y.astype(np.float64).reshape(data.answers.shape))
    own = residuals.reshape(residuals.shape[0], -1).max(axis=1)
    made = []
    for alpha in ALPHAS:
        tau = threshold_of(own[data.calibrate], alpha)
        if tau is not None:
            made.append(
                ConformalThreshold(
                    score="absolute_residual",
                    alpha=alpha,
                    tau=tau,
                    samples=int(data.calibrate.sum()),
                    model_sha256=model_sha256,
                    **_checked(own[~data.calibrate] <= tau, np.full(own.shape, 2.0 * tau)),
                )
            )
    return tuple(made)


def _checked(covered: NDArray[np.bool_], sizes: Array) -> dict[str, Any]:
    """Return how the threshold did on samples that had no part in it, and how large its sets were."""
    if covered.size == 0:
        return {}
    return {"checked": int(covered.size), "coverage": float(covered.mean()), "set_size": float(sizes.mean())}
