"""What a metric is to those who judge: one number of weighted samples.

A bootstrap resample is a weight for each sample, so a metric that can be computed with weights has an interval, also
where it is no mean (areas under curves, precision over all images).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contracts.errors import OperatorError

Array = NDArray[Any]
Floats = NDArray[np.float64]

RESAMPLES, FEW = 2000, 300
"""Bootstrap resamples of a metric that is a function of sums, and of one that has to be computed again for each."""

_CHUNK = 100


@dataclass(frozen=True, kw_only=True)
class Table:
    """A metric of so many samples: `scores` takes weights [R, count] and returns [R] values as people know them, NaN
    where there is none. `means` are each sample's contribution where the metric is their mean."""

    count: int
    scores: Callable[[Floats], Floats]
    resamples: int = FEW
    means: Floats | None = None

    @property
    def score(self) -> float:
        """The metric with every sample once."""
        return float(self.scores(np.ones((1, self.count)))[0])

    def resampled(self, *, seed: int = 0) -> Floats:
        """Return the metric of bootstrap resamples; the same samples for every table of so many."""
        found = [self.scores(weights) for weights in _weights(self.count, self.resamples, seed)]
        return np.concatenate(found)


def mean_of(values: Floats) -> Table:
    """Return the table of a mean of per-sample values."""
    wide = np.asarray(values, dtype=np.float64)
    return Table(
        count=wide.size,
        scores=lambda weights: np.asarray(weights @ wide / weights.sum(axis=1)),
        resamples=RESAMPLES,
        means=wide,
    )


def function_of_sums(terms: Array, combine: Callable[[Floats], Floats]) -> Table:
    """Return the table of a function of sums: `terms` [N, K] are added up, `combine` takes [R, K]."""
    wide = np.asarray(terms, dtype=np.float64)
    resamples = RESAMPLES if wide.shape[1] <= 64 else FEW
    return Table(count=wide.shape[0], scores=lambda weights: combine(weights @ wide), resamples=resamples)


def ratio(above: Floats, below: Floats) -> Floats:
    """Return quotients, NaN where there is nothing below."""
    return np.asarray(np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) > 0))


def _weights(count: int, resamples: int, seed: int) -> list[Floats]:
    generator = np.random.default_rng(seed)
    even = np.full(count, 1.0 / count)
    steps = range(0, resamples, _CHUNK)
    return [generator.multinomial(count, even, size=min(_CHUNK, resamples - at)).astype(np.float64) for at in steps]


def per_sample(array: Array) -> Array:
    """Return an array of samples as [N, elements]."""
    return array.reshape(array.shape[0], -1)


def alike(answers: Array, truth: Array, metric: str) -> tuple[Floats, Floats]:
    """Return answers and truth as [N, elements] of the same size. Raises OperatorError when they are not: one number
    less than the shape says is another number's place."""
    for what, one in (("answers", answers), ("truth", truth)):
        if one.dtype.kind not in "biuf":
            raise OperatorError(
                f"{metric} compares numbers, the {what} {'are' if what == 'answers' else 'is'} {one.dtype}"
            )
    if squeezed(answers.shape) != squeezed(truth.shape):
        text = f"{metric} compares numbers one by one: answers of {list(answers.shape[1:])} a sample"
        raise OperatorError(f"{text} with a truth of {list(truth.shape[1:])}")
    return per_sample(answers).astype(np.float64), per_sample(truth).astype(np.float64)


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without axes of one element behind the samples: [N, T, 1] is judged against [N, T]."""
    return (*shape[:1], *(size for size in shape[1:] if size != 1))


def finite(answers: Array, metric: str) -> Array:
    """Return the answers. Raises OperatorError for NaN or infinity, of which the metric cannot say what is right."""
    if answers.dtype.kind == "f" and not np.isfinite(answers).all():
        raise OperatorError(f"{metric} of answers that hold NaN or infinity")
    return answers
