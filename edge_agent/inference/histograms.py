"""Counting what a slot sees into the bins of its release: numbers of the inputs, confidence, classes or values of the
answers. What the counts mean is judged in `edge_agent.telemetry.drift_tests`; the reference they are held against is in
the bundle.

Requests are sampled by time, so that counting costs a busy slot nothing that shows and an idle one misses nothing.
Those that name a tag are counted for it as well, by a clock of its own: a busy tag does not crowd out a rare one.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import TensorError
from edge_agent.histogram_names import OTHER, feature_name, references, tagged, window_bytes
from edge_agent.ports import Array
from edge_agent.processing.activations import softmax
from edge_contracts.codec import convert
from edge_contracts.errors import ContractError
from edge_contracts.limits import KIB, MAX_MESSAGE_BYTES, MAX_SAMPLE_TAG_BYTES, MAX_SAMPLE_TAGS
from edge_contracts.manifest import Manifest, Variant
from edge_contracts.names import SampleTag
from edge_contracts.reference import Histogram, Statistic

EVERY_NS = 100_000_000
"""At most ten requests a second are counted: 600 in a window of a minute, more than a comparison needs."""

TAG_EVERY_NS = 500_000_000
"""Of each tag at most two requests a second, 120 in a window of a minute: of all tags eighteen a second, which take 2 %
of a core where inputs are 224 x 224 x 3."""

REST_BYTES = 4 * KIB
"""What a telemetry window holds beside histograms: counters, latency, resources."""

STATISTICS: tuple[Statistic, ...] = ("mean", "std", "minimum", "maximum")


class HistogramSampler:
    """Counts samples of the requests to one release, at most one in `every_ns`. One caller at a time.

    A histogram that would take more than is left of `room` is not begun; see `core.tags.window_bytes`."""

    def __init__(self, manifest: Manifest, *, every_ns: int = EVERY_NS, room: float = math.inf) -> None:
        self.totals: dict[str, list[int]] = {}
        self.due_ns = 0
        """From when on a request should be counted, in nanoseconds of the monotonic clock."""
        self._every_ns = every_ns
        self._room = room
        self._logits = manifest.outputs[0].kind == "logits"
        self._output = manifest.outputs[0].name
        self._inputs = [tensor.name if tensor.sampled else None for tensor in manifest.inputs]
        self._features = () if manifest.reference is None else manifest.reference.features
        self._sha256 = {variant.id: manifest.file(variant.file).sha256 for variant in manifest.variants}

    def count(self, feeds: Sequence[Array], variant: Variant, outputs: Mapping[str, Array], now: int) -> None:
        """Count the first sample of a request: what the model was fed, and what `variant` answered."""
        self.due_ns = now + self._every_ns
        fed = {name: _first(array) for name, array in zip(self._inputs, feeds, strict=True) if name is not None}
        statistics = {name: sample_statistics(array) for name, array in fed.items() if array.size}
        for feature in self._features:
            if feature.input not in statistics:
                continue
            if feature.index is None:
                value = statistics[feature.input][STATISTICS.index(feature.statistic)]
            else:
                value = float(fed[feature.input].reshape(-1)[feature.index])
            self._sort(feature_name(feature), feature.histogram, value)
        self._count_answer(variant, outputs[self._output])

    def _count_answer(self, variant: Variant, output: Array) -> None:
        reference = variant.reference
        if reference is None or reference.model_sha256 != self._sha256.get(variant.id) or not output.size:
            return
        if reference.value is not None:
            self._sort(f"{variant.id}/value", reference.value, float(_first(output).mean(dtype=np.float64)))
        if not reference.classes or output.shape[-1:] != (len(reference.classes),):
            return
        row: NDArray[np.float64] = output.reshape(-1, output.shape[-1])[:1].astype(np.float64)
        probabilities = softmax(row) if self._logits else row
        if reference.confidence is not None:
            self._sort(f"{variant.id}/confidence", reference.confidence, float(probabilities.max()))
        self._add(f"{variant.id}/class", len(reference.classes), int(probabilities.argmax()))

    def _sort(self, name: str, histogram: Histogram, value: float) -> None:
        self._add(name, len(histogram.counts), bisect_right(histogram.edges, value))

    def _add(self, name: str, size: int, index: int) -> None:
        bins = self.totals.get(name)
        if bins is None:
            needed = window_bytes(name, size)
            if needed > self._room:
                return
            self._room -= needed
            bins = self.totals[name] = [0] * size
        bins[index] += 1


class TagCounters:
    """A counter for each tag of the requests to one release: for the first ones by name, for all others one together.
    One caller at a time."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._counters: dict[str, HistogramSampler] = {}
        self._room = tag_room(manifest)

    def of(self, tag: str) -> HistogramSampler:
        """Return the counter of a tag. Raises TensorError for what is none."""
        return self._counters.get(tag) or self._meet(tag)

    def totals(self) -> dict[str, list[int]]:
        """Return what was counted, under the names of `core.tags.tagged`; from any thread."""
        counters = self._counters.copy()
        return {
            tagged(name, tag): bins for tag, counter in counters.items() for name, bins in counter.totals.copy().items()
        }

    def _meet(self, tag: str) -> HistogramSampler:
        try:
            known = convert(tag, SampleTag, what="tag")
        except ContractError as error:
            raise TensorError(str(error)) from error
        if len(self._counters) - (OTHER in self._counters) >= MAX_SAMPLE_TAGS:
            known = OTHER
        if known not in self._counters:
            self._counters[known] = HistogramSampler(self._manifest, every_ns=TAG_EVERY_NS, room=self._room)
        return self._counters[known]


def tag_room(manifest: Manifest) -> int:
    """Return how many bytes of a window each tag's histograms may take: less than usual, down to nothing, where those
    of all requests leave less."""
    all_requests = sum(window_bytes(name, len(counts)) for name, counts in references(manifest).items())
    left = MAX_MESSAGE_BYTES - REST_BYTES - all_requests
    return max(0, min(MAX_SAMPLE_TAG_BYTES, left // (MAX_SAMPLE_TAGS + 1)))


def sample_statistics(fed: Any) -> tuple[float, float, float, float]:
    """Return mean, standard deviation, minimum and maximum of one sample as the model is fed it, in float64."""
    wide = fed.astype(np.float64)
    return float(wide.mean()), float(wide.std()), float(wide.min()), float(wide.max())


def _first(array: Array) -> Array:
    """Return the first sample of a tensor, or all of one without an axis for samples."""
    return array[:1] if array.shape else array
