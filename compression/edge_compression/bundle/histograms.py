"""Reference histograms: what inputs and answers looked like, in bins a device can count into.

Borders are quantiles of the reference itself, so that every bin has its share of it; the records are in
`edge_contracts.reference`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.inference.histograms import STATISTICS, sample_statistics
from edge_agent.inference.samples import to_model
from edge_contracts.manifest import Input
from edge_contracts.reference import AnswerReference, Feature, Histogram, InputReference

Array = NDArray[Any]
Floats = NDArray[np.float64]

BINS = 10
"""Bins of one histogram: with tenths, windows of a hundred samples have ten in each."""

MAX_ELEMENTS = 16
"""Inputs of at most so many elements are features in themselves and have a histogram each."""


def histogram(values: Floats) -> Histogram | None:
    """Return the histogram of values in bins of equal counts, fewer where values repeat; None for a constant."""
    borders = np.unique(np.quantile(values, np.linspace(0.0, 1.0, BINS + 1)[1:-1]))
    borders = borders[(borders > values.min()) & np.isfinite(borders)]
    if borders.size == 0:
        return None
    counts = np.bincount(np.searchsorted(borders, values, side="right"), minlength=borders.size + 1)
    return Histogram(edges=tuple(map(float, borders)), counts=tuple(map(int, counts)))


def inputs(x: Array, tensor: Input) -> InputReference:
    """Return the reference of the samples `x`, as the model is fed them, one sample at a time in memory."""
    rows = np.array([sample_statistics(to_model(x[index : index + 1], tensor)) for index in range(x.shape[0])])
    features = [
        Feature(input=tensor.name, statistic=name, histogram=made)
        for column, name in enumerate(STATISTICS)
        if (made := histogram(rows[:, column])) is not None
    ]
    if x[0].size <= MAX_ELEMENTS:
        elements = to_model(x, tensor).reshape(x.shape[0], -1).astype(np.float64)
        features += [
            Feature(input=tensor.name, statistic="element", index=index, histogram=made)
            for index in range(elements.shape[1])
            if (made := histogram(elements[:, index])) is not None
        ]
    return InputReference(samples=x.shape[0], features=tuple(features))


def class_answers(probabilities: Floats, model_sha256: str) -> AnswerReference:
    """Return the reference of class probabilities [N, C]."""
    top, count = probabilities.argmax(axis=1), probabilities.shape[1]
    return AnswerReference(
        model_sha256=model_sha256,
        samples=probabilities.shape[0],
        confidence=histogram(probabilities.max(axis=1)),
        classes=tuple(map(int, np.bincount(top, minlength=count))),
    )


def value_answers(answers: Array, model_sha256: str) -> AnswerReference:
    """Return the reference of other outputs: each sample's mean."""
    means = answers.astype(np.float64).reshape(answers.shape[0], -1).mean(axis=1)
    return AnswerReference(model_sha256=model_sha256, samples=answers.shape[0], value=histogram(means))
