"""How near a candidate's outputs are to the original's, in figures without a unit: they stand beside every metric, and
where they disagree with it somebody should look."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.inference.quality_metrics import decibels
from edge_contracts.codec import StrictRecord

Array = NDArray[Any]

MAX_ELEMENTS = 4_000_000
"""Numbers that are looked at, evenly over the samples: a figure to compare with needs no more."""

LOW_DB, LOW_CLASS_DB = 20.0, 10.0
"""Signal-to-noise ratios below which a loss near nothing is to be doubted: of numbers, and of classes' scores, whose
order may hold where they move together."""

LOW_AGREEMENT = 0.9


class Fidelity(StrictRecord, frozen=True, kw_only=True):
    """One output of the model against the original's: the signal-to-noise ratio in decibels, the cosine of the angle
    between all numbers, the root mean square difference over the standard deviation, and the share of samples with the
    same class, or of equal whole numbers. None where there is no such figure."""

    output: str
    snr_db: float | None
    cosine: float | None
    nrmse: float | None
    agreement: float | None


def fidelity(output: str, answers: Array, original: Array, *, axis: int | None) -> Fidelity:
    """Compare one output; `axis` is that of its classes, None where it has none."""
    if original.dtype.kind != "f":
        same = float(np.mean(answers == original)) if answers.shape == original.shape else 0.0
        return Fidelity(output=output, snr_db=None, cosine=None, nrmse=None, agreement=same)
    each = max(1, int(np.prod(original.shape[1:])))
    wanted = max(1, min(len(original), MAX_ELEMENTS // each))
    rows = np.unique(np.linspace(0, len(original) - 1, wanted).astype(np.intp))
    a, b = answers[rows], original[rows]
    same_class = None
    if axis is not None and b.ndim > 1 and b.shape[axis] > 1:
        same_class = float(np.mean(a.argmax(axis=axis) == b.argmax(axis=axis)))
    known = np.isfinite(a) & np.isfinite(b)
    if not known.any():
        return Fidelity(output=output, snr_db=None, cosine=None, nrmse=None, agreement=same_class)
    wide, true = a[known].astype(np.float64), b[known].astype(np.float64)
    scale = float(np.abs(true).max()) or 1.0
    wide, true = wide / scale, true / scale
    noise, power = float(np.sqrt(np.mean(np.square(wide - true)))), float(np.sqrt(np.mean(np.square(true))))
    lengths = float(np.linalg.norm(wide) * np.linalg.norm(true))
    spread = float(true.std())
    return Fidelity(
        output=output,
        snr_db=decibels(noise / power) if power > 0.0 else None,
        cosine=float(wide @ true / lengths) if lengths > 0.0 else None,
        nrmse=noise / spread if spread > 0.0 else None,
        agreement=same_class,
    )


def doubt(found: Fidelity, drop: float, limit: float, *, by_class: bool) -> str | None:
    """Return why a loss that looks small should be doubted, or None."""
    if drop > 0.5 * limit:
        return None
    if found.snr_db is not None and found.snr_db < (LOW_CLASS_DB if by_class else LOW_DB):
        return (
            f"{found.output} is within its limit by its metric, but only {found.snr_db:.0f} dB of its answers are the "
            "original's: look at them before you trust the metric"
        )
    if by_class and found.agreement is not None and found.agreement < LOW_AGREEMENT:
        return f"{found.output} answers {1.0 - found.agreement:.0%} of the samples otherwise than the original"
    return None
