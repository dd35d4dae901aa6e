"""Compares two answers to one request: classes by name, confidence, and the largest difference of numbers.

Adding up what is found is in `edge_agent.answer_comparison`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge_agent.answer_comparison import AnswerDifference
from edge_agent.ports import Array
from edge_agent.processing.activations import softmax
from edge_contracts.manifest import Manifest

Floats = NDArray[np.float64]

MAX_LABEL_CHARS = 40
"""Of a label, what is counted by: windows stay small."""


class AnswerComparer:
    """Compares answers of release `before` with answers of release `after`, each by its own first output."""

    def __init__(self, before: Manifest, after: Manifest) -> None:
        self._before = before
        self._after = after
        self._classes = before.outputs[0].kind != "values" and after.outputs[0].kind != "values"

    def compare(self, before: Mapping[str, Array], after: Mapping[str, Array]) -> AnswerDifference:
        """Compare two answers of the manifests' outputs by name; neither has abstained."""
        a, b = before.get(self._before.outputs[0].name), after.get(self._after.outputs[0].name)
        if not self._classes or a is None or b is None:
            return AnswerDifference(agrees=None, largest=_largest(before, after))
        one, two = _rows(a, self._before), _rows(b, self._after)
        if not len(one) or len(one) != len(two):
            return AnswerDifference(agrees=False, before=f"{len(one)} rows", after=f"{len(two)} rows", largest=np.nan)
        pairs = [(self._name(self._before, i), self._name(self._after, j)) for i, j in _pairs(one, two)]
        differing = [(i, j) for i, j in pairs if i != j]
        classes = (differing or pairs)[0]
        return AnswerDifference(
            agrees=not differing,
            before=classes[0],
            after=classes[1],
            shift=float(two.max(axis=1).mean() - one.max(axis=1).mean()),
            largest=largest_difference(a, b),
        )

    def _name(self, manifest: Manifest, index: int) -> str:
        """Return the label of a class; where one side has no labels, both are counted by number."""
        if self._before.labels and self._after.labels and index < len(manifest.labels):
            return manifest.labels[index][:MAX_LABEL_CHARS]
        return str(index)


def largest_difference(a: Array, b: Array) -> float:
    """Return the largest absolute difference; NaN where shapes differ or only one side is finite somewhere."""
    if a.shape != b.shape:
        return float("nan")
    x, y = a.astype(np.float64), b.astype(np.float64)
    known = np.isfinite(x)
    if not np.array_equal(known, np.isfinite(y)):
        return float("nan")
    return float(np.abs(x[known] - y[known]).max(initial=0.0))


def _pairs(one: Floats, two: Floats) -> list[tuple[int, int]]:
    """Return the pairs of likeliest classes there are, each once: a dense answer has a place for each pixel."""
    both = np.stack([one.argmax(axis=1), two.argmax(axis=1)], axis=1)
    return [(int(i), int(j)) for i, j in np.unique(both, axis=0)]


def _largest(before: Mapping[str, Array], after: Mapping[str, Array]) -> float:
    """Return the largest difference of all outputs that both have; NaN where they have none in common."""
    common = [name for name in before if name in after]
    found = [largest_difference(before[name], after[name]) for name in common]
    return float(np.max(found)) if found else float("nan")


def _rows(output: Array, manifest: Manifest) -> Floats:
    """Return an answer as probabilities [N, C] in float64."""
    if output.ndim == 0 or output.shape[-1] == 0:
        return np.zeros((0, 1))
    rows: Floats = output.reshape(-1, output.shape[-1]).astype(np.float64)
    return softmax(rows) if manifest.outputs[0].kind == "logits" else rows
