"""Where a variant's error arises: signal-to-quantization-noise of every layer against the original, on calibration
samples, with exact arithmetic. Runs in a process of its own (`python -m edge_compression.evaluation.layer_errors
<LayersPlan JSON> <starter's process id>`): all activations of two models are in memory at once.

Passes rename, split and fuse what they touch, so a layer's counterpart is found by its values: of the variant's tensors
of the same shape, the one nearest to the original's on the first samples. What was fused away or has fewer channels
has none.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_bench.children import die_with, run
from edge_compression.pass_api import Feeds
from edge_compression.stored_samples import stored_runs
from edge_contracts.codec import StrictRecord
from edge_contracts.limits import MIB
from edge_contracts.manifest import Input

Array = NDArray[Any]

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "GRU", "LSTM", "Add", "Attention"})
"""Operators whose outputs are looked at: those that compute, and the sums where branches meet."""

MATCHING_SAMPLES, SAMPLES = 2, 16
LEAST_DB = 3.0
"""Below this the nearest tensor is none of the layer's: half of the signal is missing."""

LARGEST_DB = 120.0
"""What is equal to the last bit is shown as this, there being no infinity on paper."""

TIMEOUT_S = 120.0
DRAWS = 400
"""Resamples of the samples for the interval of a layer."""


class LayersPlan(StrictRecord, frozen=True, kw_only=True):
    """Compare `variant` with `original`, both ONNX files, on the first samples of `calibration`, a .npy file or a
    folder with one for each of `tensors`."""

    original: str
    variant: str
    calibration: str
    tensors: tuple[Input, ...]
    memory_limit_mb: float


class LayerError(StrictRecord, frozen=True, kw_only=True):
    """One layer of the original: its node's name and operator, and the variant's signal-to-noise ratio there in
    decibels; None when the variant has no such tensor. `low_db` and `high_db`: its 95 % interval over samples."""

    name: str
    operator: str
    sqnr_db: float | None
    low_db: float | None = None
    high_db: float | None = None


def layer_errors(plan: LayersPlan) -> tuple[LayerError, ...]:
    """Return the errors in the order of the original's layers, or nothing when the comparison cannot be made: the
    report says so and is complete without it."""
    try:
        done = run(
            ["edge_compression.evaluation.layer_errors", msgspec.json.encode(plan).decode()], timeout_s=TIMEOUT_S
        )
        return msgspec.json.decode(done.stdout, type=tuple[LayerError, ...])
    except (subprocess.SubprocessError, msgspec.MsgspecError):
        return ()


@dataclass
class _Pair:
    """A layer of the original, the variant's tensor taken for its counterpart, and the sums seen so far."""

    node: Any
    output: str
    match: str | None = None
    signals: list[float] = field(default_factory=list)
    noises: list[float] = field(default_factory=list)

    def add(self, original: Array, variant: Array) -> None:
        wide = original.astype(np.float64)
        self.signals.append(float(np.square(wide).sum()))
        self.noises.append(float(np.square(variant.astype(np.float64) - wide).sum()))

    def error(self) -> LayerError:
        """Return what is known of the layer; the interval is of resampled samples."""
        made = LayerError(name=self.node.name or self.output, operator=self.node.op_type, sqnr_db=None)
        if self.match is None or sum(self.signals) == 0.0:
            return made
        signals, noises = np.array(self.signals), np.array(self.noises)
        drawn = np.random.default_rng(0).integers(0, signals.size, (DRAWS, signals.size))
        low, high = np.quantile(_decibels(signals[drawn].sum(axis=1), noises[drawn].sum(axis=1)), (0.025, 0.975))
        whole = float(_decibels(signals.sum(keepdims=True), noises.sum(keepdims=True))[0])
        return msgspec.structs.replace(made, sqnr_db=whole, low_db=float(low), high_db=float(high))


def _decibels(signal: Array, noise: Array) -> Array:
    """Return ratios of sums in decibels, `LARGEST_DB` at most."""
    least = 10.0 ** (-LARGEST_DB / 10.0)
    return np.asarray(-10.0 * np.log10(np.maximum(noise / np.maximum(signal, np.finfo(np.float64).tiny), least)))


def compare(plan: LayersPlan) -> tuple[LayerError, ...]:
    """Compare the two models in this process."""
    from edge_compression.onnx_tools.graph import load

    original, variant = load(Path(plan.original).read_bytes()), load(Path(plan.variant).read_bytes())
    pairs = [
        _Pair(node=node, output=node.output[0])
        for node in original.graph.node
        if node.op_type in LAYERS and node.output[0] != ""
    ]
    names = [name for node in variant.graph.node for name in node.output if name]
    _match(pairs, _runs(plan, original, [pair.output for pair in pairs]), _runs(plan, variant, names))
    matched = [pair for pair in pairs if pair.match is not None]
    wanted = list(dict.fromkeys(str(pair.match) for pair in matched))
    both = zip(_runs(plan, original, [pair.output for pair in matched]), _runs(plan, variant, wanted), strict=True)
    for ours, theirs in both:
        for pair in matched:
            pair.add(ours[pair.output], theirs[str(pair.match)])
    return tuple(pair.error() for pair in pairs)


def _match(pairs: list[_Pair], original: Iterator[dict[str, Array]], variant: Iterator[dict[str, Array]]) -> None:
    """Choose each layer's counterpart: the least noise over the first samples, and not too much of it."""
    noise: dict[tuple[int, str], float] = {}
    signal = np.zeros(len(pairs))
    for ours, theirs in islice(zip(original, variant, strict=True), MATCHING_SAMPLES):
        by_shape: dict[tuple[int, ...], list[str]] = {}
        for name, values in theirs.items():
            if values.dtype.kind == "f":
                by_shape.setdefault(values.shape, []).append(name)
        for place, pair in enumerate(pairs):
            values = ours[pair.output]
            signal[place] += float(np.square(values, dtype=np.float64).sum())
            for name in by_shape.get(values.shape, []):
                gap = float(np.square(theirs[name] - values, dtype=np.float64).sum())
                noise[place, name] = noise.get((place, name), 0.0) + gap
    for place, pair in enumerate(pairs):
        found = {name: value for (index, name), value in noise.items() if index == place}
        best = min(found, key=lambda name: found[name], default=None)
        if best is not None and found[best] <= signal[place] * 10.0 ** (-LEAST_DB / 10.0):
            pair.match = best


def _runs(plan: LayersPlan, model: Any, names: list[str]) -> Iterator[dict[str, Array]]:
    """Yield these tensors of a model for each sample, exact arithmetic."""
    from edge_compression.onnx_tools.graph import save, session, with_outputs

    opened = session(save(with_outputs(model, names)), optimize=False)
    for feeds in _samples(plan):
        yield dict(zip(names, opened.run(names, feeds), strict=True)) if names else {}


def _samples(plan: LayersPlan) -> Iterator[Feeds]:
    runs = stored_runs(plan.tensors, Path(plan.calibration))
    for index in range(min(SAMPLES, runs.count)):
        yield runs.feeds(index)


def main(arguments: list[str]) -> int:
    """Run the plan: the arguments are the plan as JSON and the parent's process id."""
    die_with(arguments[1])
    plan = msgspec.json.decode(arguments[0], type=LayersPlan)
    limit = int(plan.memory_limit_mb * MIB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    sys.stdout.buffer.write(msgspec.json.encode(compare(plan)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
