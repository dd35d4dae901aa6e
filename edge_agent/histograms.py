"""Counting what a slot sees into the bins of its release: numbers of the inputs, confidence, classes or values of the
answers. What the counts mean is judged in `edge_agent.core.drift`; the reference they are held against is in the
bundle.

Requests are sampled by time, so that counting costs a busy slot nothing that shows and an idle one misses nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.conformal import softmax
from edge_agent.core.drift import feature_name
from edge_agent.ports import Array
from edge_contracts.manifest import Manifest, Variant
from edge_contracts.reference import Histogram, Statistic

EVERY_NS = 100_000_000
"""At most ten requests a second are counted: 600 in a window of a minute, more than a comparison needs."""

STATISTICS: tuple[Statistic, ...] = ("mean", "std", "minimum", "maximum")


class SeenCounter:
    """Counts samples of the requests to one release. One caller at a time."""

    def __init__(self, manifest: Manifest) -> None:
        self.totals: dict[str, list[int]] = {}
        self.due_ns = 0
        """From when on a request should be counted, in nanoseconds of the monotonic clock."""
        self._logits = manifest.outputs[0].kind == "logits"
        self._output = manifest.outputs[0].name
        self._inputs = [tensor.name for tensor in manifest.inputs]
        self._features = () if manifest.reference is None else manifest.reference.features
        self._sha256 = {variant.id: manifest.file(variant.file).sha256 for variant in manifest.variants}

    def count(self, feeds: Sequence[Array], variant: Variant, outputs: Mapping[str, Array], now: int) -> None:
        """Count the first sample of a request: what the model was fed, and what `variant` answered."""
        self.due_ns = now + EVERY_NS
        fed = dict(zip(self._inputs, feeds, strict=True))
        statistics = {name: sample_statistics(array[:1]) for name, array in fed.items() if array.size}
        for feature in self._features:
            if feature.input not in statistics:
                continue
            if feature.index is None:
                value = statistics[feature.input][STATISTICS.index(feature.statistic)]
            else:
                value = float(fed[feature.input][:1].reshape(-1)[feature.index])
            self._add(feature_name(feature), feature.histogram, value)
        self._count_answer(variant, outputs[self._output])

    def _count_answer(self, variant: Variant, output: Array) -> None:
        reference = variant.reference
        if reference is None or reference.model_sha256 != self._sha256.get(variant.id) or not output.size:
            return
        if reference.value is not None:
            self._add(f"{variant.id}/value", reference.value, float(output[:1].mean(dtype=np.float64)))
        if not reference.classes or output.shape[-1] != len(reference.classes):
            return
        row: NDArray[np.float64] = output.reshape(-1, output.shape[-1])[:1].astype(np.float64)
        probabilities = softmax(row) if self._logits else row
        if reference.confidence is not None:
            self._add(f"{variant.id}/confidence", reference.confidence, float(probabilities.max()))
        classes = self.totals.setdefault(f"{variant.id}/class", [0] * len(reference.classes))
        classes[int(probabilities.argmax())] += 1

    def _add(self, name: str, histogram: Histogram, value: float) -> None:
        bins = self.totals.setdefault(name, [0] * len(histogram.counts))
        bins[bisect_right(histogram.edges, value)] += 1


def sample_statistics(fed: Any) -> tuple[float, float, float, float]:
    """Return mean, standard deviation, minimum and maximum of one sample as the model is fed it, in float64."""
    wide = fed.astype(np.float64)
    return float(wide.mean()), float(wide.std()), float(wide.min()), float(wide.max())
