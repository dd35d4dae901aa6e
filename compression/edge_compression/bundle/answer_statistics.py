"""What a bundle says about one variant's answers: thresholds and reference histograms, from its own outputs.

Here: which samples calibrate and which check, and what kind of answer gets which statistics. The arithmetic is in
`conformal` and `histograms`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.processing.activations import softmax
from edge_compression.bundle import conformal, histograms
from edge_compression.guards import OutputKind
from edge_contracts.reference import AnswerReference, ConformalThreshold

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What is said of one variant."""

    conformal: tuple[ConformalThreshold, ...]
    reference: AnswerReference | None


def calibrating(count: int, held_back: slice) -> NDArray[np.bool_]:
    """Return which samples calibrate thresholds: those that had no say in choosing the variant, else a random half."""
    marks = np.zeros(count, dtype=np.bool_)
    if held_back.stop > held_back.start:
        marks[held_back] = True
    else:
        marks[np.random.default_rng(0).permutation(count)[: (count + 1) // 2]] = True
    return marks


def statistics(
    answers: Array, y: Array, kind: OutputKind, *, calibrate: NDArray[np.bool_], model_sha256: str
) -> Statistics:
    """Return the statistics of a variant's first output for labeled samples. Answers that are neither one class nor
    values of the targets' size a sample have none."""
    rows = answers.reshape(answers.shape[0], -1).astype(np.float64)
    if kind == "values":
        fits = rows.size == y.size
        data = conformal.Labeled(answers=rows, y=y, calibrate=calibrate)
        return Statistics(
            conformal=conformal.regression(data, model_sha256) if fits else (),
            reference=histograms.value_answers(answers, model_sha256),
        )
    if rows.shape[1] != answers.shape[-1]:
        return Statistics(conformal=(), reference=None)
    probabilities = rows if kind == "probabilities" else softmax(rows)
    data = conformal.Labeled(answers=probabilities, y=y, calibrate=calibrate)
    return Statistics(
        conformal=conformal.classification(data, model_sha256),
        reference=histograms.class_answers(probabilities, model_sha256),
    )
