"""Least-squares refit: a layer's weights chosen anew so that it answers as in the original from the inputs it gets now.

Here: sums over samples that stream through both models, and the regression. Memory is a matrix of a layer's columns.
The reconstruction of a layer's outputs after channels are gone is that of He, Zhang and Sun 2017 (arXiv:1707.06168,
section 3.1) and ThiNet (Luo et al. 2017, arXiv:1707.06342); the inputs are those of the pruned model, so that what
earlier layers lost is made up for too. The ridge keeps weights near what they were; how near, samples held out decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_compression.onnx_tools.graph import save, session, with_outputs
from edge_compression.pass_api import Feeds, PassError
from edge_compression.pruning.affine_layers import Affine, affine_layers

Array = NDArray[Any]
Samples = Callable[[], Iterator[Feeds]]
Source = Callable[[Feeds], Array]
"""A layer's inputs in one model, or what it should make of them, from a sample: one row a position."""

BLOCK_ROWS = 512
"""Inputs of a layer that are multiplied at a time."""

RIDGES = (0.001, 0.01, 0.1, 1.0)
"""Strengths of the pull towards the weights as they are, as shares of the mean second moment."""

HELD_OUT = 4
"""Of so many samples one is held out to choose the ridge; afterwards all are used."""


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Sums over a layer's inputs x (with a one appended if it has a bias) and wanted outputs y: `own` of x x^T [n, n],
    `cross` of y x^T [r, n], `energy` of y^T y."""

    own: Array
    cross: Array
    energy: float

    def __add__(self, other: Sums) -> Sums:
        return Sums(own=self.own + other.own, cross=self.cross + other.cross, energy=self.energy + other.energy)

    def error(self, rows: Array) -> float:
        """Return the squared error of these rows as a share of the squared wanted outputs."""
        explained = np.sum((rows @ self.own - 2.0 * self.cross) * rows)
        return max(float(explained) + self.energy, 0.0) / self.energy if self.energy else 0.0


def sums(inputs: Source, wanted: Source, samples: Samples) -> tuple[Sums, Sums]:
    """Return the sums over the samples used for fitting and over those held out."""
    fitting, held_out = (
        _sums((inputs(feeds), wanted(feeds)) for feeds in _part(samples, held=held)) for held in (False, True)
    )
    if fitting is None:
        raise PassError("no sample to refit on", subject="calib_x")
    return fitting, held_out or fitting


def _part(samples: Samples, *, held: bool) -> Iterator[Feeds]:
    return (feeds for index, feeds in enumerate(samples()) if (index % HELD_OUT == HELD_OUT - 1) is held)


def _sums(pairs: Iterable[tuple[Array, Array]]) -> Sums | None:
    total: Sums | None = None
    for x, y in in_blocks(pairs):
        own, cross = (x.T @ x).astype(np.float64), (y.T @ x).astype(np.float64)
        one = Sums(own=own, cross=cross, energy=float(np.square(y, dtype=np.float64).sum()))
        total = one if total is None else total + one
    return total


def in_blocks(rows: Iterable[tuple[Array, ...]]) -> Iterator[tuple[Array, ...]]:
    """Yield the arrays of many samples joined along their first axis, so that products are of matrices."""
    pending: list[tuple[Array, ...]] = []
    for one in rows:
        pending.append(one)
        if sum(arrays[0].shape[0] for arrays in pending) >= BLOCK_ROWS:
            yield tuple(np.concatenate(column) for column in zip(*pending, strict=True))
            pending = []
    if pending:
        yield tuple(np.concatenate(column) for column in zip(*pending, strict=True))


def refit(rows: Array, fitting: Sums, held_out: Sums) -> Array:
    """Return rows [r, n] that give the wanted outputs, or the ones given if nothing does better on samples held out."""
    errors = {ridge: held_out.error(_solved(rows, fitting, ridge)) for ridge in RIDGES}
    best = min(errors, key=lambda ridge: errors[ridge])
    return _solved(rows, fitting + held_out, best) if errors[best] < held_out.error(rows) else rows


def _solved(rows: Array, found: Sums, ridge: float) -> Array:
    size = found.own.shape[0]
    damped = found.own + (ridge * np.trace(found.own) / size or 1.0) * np.eye(size)
    return np.asarray(rows + np.linalg.solve(damped, (found.cross - rows @ found.own).T).T)


def layer_inputs(model: onnx.ModelProto, layer: Affine) -> Source:
    """Return what computes a layer's inputs in a model from a sample, [positions, columns (+ 1)]."""
    name = layer.node.input[0]
    opened = None if name in {info.name for info in model.graph.input} else session(save(with_outputs(model, [name])))
    return lambda feeds: layer.inputs(feeds[name] if opened is None else opened.run([name], feeds)[0])


def layer_outputs(model: onnx.ModelProto, layer: Affine, kept: Array) -> Source:
    """Return what computes the `kept` ones of a layer's outputs in a model from a sample, [positions, rows]."""
    inputs, rows = layer_inputs(model, layer), layer.rows(model)[kept].astype(np.float32)
    return lambda feeds: inputs(feeds) @ rows.T


def refit_layers(model: onnx.ModelProto, original: onnx.ModelProto, kept: Mapping[str, Array], samples: Samples) -> int:
    """Refit every layer of `model` to answer as the layer of the same output does in `original`, from the first to the
    last, in place; return how many became better. `kept` tells by a layer's output which of the original's channels it
    still makes. One pass over the samples a layer, through both models."""
    before = affine_layers(original)
    better = 0
    for output, layer in affine_layers(model).items():
        old = before.get(output)
        if old is None or output not in kept or (layer.bias is None) != (old.bias is None):
            continue
        rows = layer.rows(model)
        found = sums(layer_inputs(model, layer), layer_outputs(original, old, kept[output]), samples)
        fitted = refit(rows, *found)
        if fitted is not rows:
            layer.write(model, fitted)
            better += 1
    return better
