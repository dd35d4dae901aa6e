"""What a model's answers lose when one site keeps fewer channels: measured, site by site and level by level.

Even samples say which channels are least missed and how their readers make up for it, odd samples what is then wrong
with the answers: on the same samples a layer with more inputs than samples would seem to lose nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_compression.onnx_tools.graph import save, session, with_outputs
from edge_compression.onnx_tools.logits import logits_of
from edge_compression.pass_api import Feeds
from edge_compression.pruning.affine_layers import Affine, affine_layers
from edge_compression.pruning.channel_order import Reader, removal_steps
from edge_compression.pruning.channels.graph import ChannelGraph, PruningSite
from edge_compression.pruning.plan import levels
from edge_compression.pruning.refit import Samples, in_blocks, layer_inputs

Array = NDArray[Any]

MOST_RUNS = 6000
"""Answers computed for all measurements of a model together, half a minute at 5 ms; spread over sites and levels."""

FEWEST, MOST = 16, 128
"""Samples of one measurement: fewer do not tell sites apart, more are not needed to."""


@dataclass(frozen=True, kw_only=True)
class SiteLoss:
    """A site's number of units, the order in which they go, and by the number kept the squared error of the answers as
    a share of their variance."""

    units: int
    order: tuple[int, ...]
    losses: dict[int, float]


@dataclass(frozen=True, kw_only=True)
class _Sited:
    """A layer that reads a site: its rows with the bias, the moments of its inputs about their mean, and that mean."""

    layer: Affine
    rows: Array
    moments: Array
    mean: Array
    units: Array

    def without(self, rows: Array) -> Array:
        """Return other weights with the bias that keeps the mean output."""
        if self.layer.bias is None:
            return rows
        bias = self.rows[:, -1] + (self.rows[:, :-1] - rows) @ self.mean
        return np.hstack([rows, bias[:, None]])


def prunable(model: onnx.ModelProto, graph: ChannelGraph) -> ChannelGraph:
    """Return the graph with only those sites whose every reader can be refitted."""
    known = affine_layers(model)
    outputs = [layer.node.output[0] for layer in graph.layers]
    sites = tuple(site for site in graph.sites if all(outputs[index] in known for index in site.readers))
    return replace(graph, sites=sites)


def site_losses(model: onnx.ModelProto, graph: ChannelGraph, samples: Samples, *, multiple: int) -> list[SiteLoss]:
    """Return the losses of every site of a `prunable` graph, each pruned alone."""
    tried = [levels(site.units.size, multiple) for site in graph.sites]
    runs = MOST_RUNS // max(1, sum(map(len, tried)))
    held_out = list(islice(samples(), 1, 2 * min(MOST, max(FEWEST, runs)), 2))
    truth = _answers(model, held_out)
    layers = affine_layers(model)
    found = []
    for site, kept in zip(graph.sites, tried, strict=True):
        readers = [_sited(model, graph, index, layers, samples) for index in site.readers]
        plain = [_reader(one, site) for one in readers]
        order, states = removal_steps(site.units, plain, kept)
        losses = {
            level: _loss(_answers(_with_rows(model, readers, rows), held_out), truth) for level, rows in states.items()
        }
        found.append(SiteLoss(units=site.units.size, order=tuple(order), losses=losses))
    return found


def _sited(
    model: onnx.ModelProto, graph: ChannelGraph, index: int, layers: dict[str, Affine], samples: Samples
) -> _Sited:
    layer = layers[graph.layers[index].node.output[0]]
    rows = layer.rows(model)
    source = layer_inputs(model, layer)
    total, count = np.zeros((rows.shape[1],) * 2), 0
    for (taken,) in in_blocks((source(feeds),) for feeds in islice(samples(), 0, None, 2)):
        total += taken.T @ taken
        count += taken.shape[0]
    if layer.bias is None:
        return _Sited(layer=layer, rows=rows, moments=total, mean=np.zeros(rows.shape[1]), units=graph.columns(index))
    mean = total[-1, :-1] / max(1, count)
    moments = total[:-1, :-1] - count * np.outer(mean, mean)
    return _Sited(layer=layer, rows=rows, moments=moments, mean=mean, units=graph.columns(index))


def _reader(one: _Sited, site: PruningSite) -> Reader:
    weights = one.rows if one.layer.bias is None else one.rows[:, :-1]
    return Reader(rows=weights, moments=one.moments, units=np.where(np.isin(one.units, site.units), one.units, 0))


def _with_rows(model: onnx.ModelProto, readers: list[_Sited], rows: tuple[Array, ...]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for one, refitted in zip(readers, rows, strict=True):
        one.layer.write(copy, one.without(refitted))
    return copy


def _answers(model: onnx.ModelProto, samples: list[Feeds]) -> Array:
    name = logits_of(model)
    opened = session(save(with_outputs(model, [name])))
    return np.stack([np.asarray(opened.run([name], feeds)[0], np.float64).reshape(-1) for feeds in samples])


def _loss(answers: Array, truth: Array) -> float:
    spread = float(np.square(truth - truth.mean(axis=0)).sum()) or 1.0
    return float(np.square(answers - truth).sum()) / spread
