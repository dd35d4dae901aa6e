"""A graph's removable channels and their removal: what the labels of a settled flow mean.

A unit is a set of channels that go together; units with the same owners (the outputs of one layer, or of those that
residual sums tie together) are a site. Removing units slices constants, groups and constant sizes, nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge_compression.onnx_tools.graph import array, attributes, initializers, save, session, with_outputs
from edge_compression.pass_api import Feeds
from edge_compression.pruning.channels.flow import Flow, FlowLayer, Shape, flow_through
from edge_compression.pruning.channels.labels import STAYS
from edge_compression.pruning.channels.rules import RULES

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class PruningSite:
    """Units that the same layers own, and the layers that read them and can be refitted, both as indices of layers."""

    units: Array
    makers: tuple[int, ...]
    readers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ChannelGraph:
    """Layers in the graph's order with the units of their inputs and outputs (0: not removable), the sites, the units
    along constants' axes, and how the constant shape of a Reshape or the sizes of a Split depend on units."""

    layers: tuple[FlowLayer, ...]
    sites: tuple[PruningSite, ...]
    slots: Mapping[tuple[str, int], Array]
    sizes: Mapping[str, tuple[Array, ...]]

    def columns(self, layer: int) -> Array:
        """Return the unit of each column of a layer's rows (`moments.as_rows`); 0 for those that stay."""
        return np.repeat(self.layers[layer].taken, self.layers[layer].kernel)


def channel_graph(model: onnx.ModelProto, feeds: Feeds) -> ChannelGraph:
    """Return the channels of a model; `feeds` is one sample, which shows the shapes."""
    flow = flow_through(model, tensor_shapes(model, feeds), RULES)
    layers = tuple(_settled(flow, layer) for layer in flow.layers)
    slots = {place: flow.labels.roots(labels) for place, labels in flow.slots.items()}
    for name in set(flow.tensors) & set(flow.constants):
        for axis in flow.labels.varying(flow.tensors[name]):
            slots[name, axis] = _along(flow, flow.tensors[name], axis)
    return ChannelGraph(layers=layers, sites=_sites(layers), slots=slots, sizes=_sizes(flow))


def tensor_shapes(model: onnx.ModelProto, feeds: Feeds) -> dict[str, Shape]:
    """Return the shape of every tensor of the main graph for one sample, by running it."""
    names = [name for node in model.graph.node for name in node.output if name]
    opened = session(save(with_outputs(model, names)), optimize=False)
    values = opened.run(names, feeds)
    shapes = {name: tuple(np.shape(value)) for name, value in zip(names, values, strict=True)}
    return shapes | {name: tuple(np.shape(value)) for name, value in feeds.items()}


def _settled(flow: Flow, layer: FlowLayer) -> FlowLayer:
    return replace(layer, taken=flow.labels.roots(layer.taken), given=flow.labels.roots(layer.given))


def _sites(layers: tuple[FlowLayer, ...]) -> tuple[PruningSite, ...]:
    """Group units by the layers that make them; those that no layer reads cannot be made up for, so they stay."""
    makers = _places(layers, "given")
    readers = _places(layers, "taken")
    found: dict[tuple[int, ...], list[int]] = {}
    for unit, owners in makers.items():
        found.setdefault(owners, []).append(unit)
    sites = []
    for owners, units in found.items():
        reading = {index for unit in units for index in readers.get(unit, ()) if layers[index].groups == 1}
        if reading and len(units) > 1:
            sites.append(PruningSite(units=np.array(sorted(units)), makers=owners, readers=tuple(sorted(reading))))
    return tuple(sorted(sites, key=lambda site: site.readers))


def _places(layers: tuple[FlowLayer, ...], side: str) -> dict[int, tuple[int, ...]]:
    found: dict[int, set[int]] = {}
    for index, layer in enumerate(layers):
        for unit in np.unique(getattr(layer, side)).tolist():
            found.setdefault(unit, set()).add(index)
    return {unit: tuple(sorted(places)) for unit, places in found.items() if unit != STAYS}


def _sizes(flow: Flow) -> dict[str, tuple[Array, ...]]:
    """Return for each node with sizes the units along every axis of each output, by the first output's name."""
    return {
        node.output[0]: tuple(
            _along(flow, labels, axis) for labels in map(flow.get, node.output) for axis in range(labels.ndim)
        )
        for node in flow.resized
    }


def _along(flow: Flow, labels: Array, axis: int) -> Array:
    """Return the units along an axis of a settled tensor: all stay unless it is the one along which they differ."""
    if axis not in flow.labels.varying(labels):
        return np.full(labels.shape[axis], STAYS)
    return flow.labels.roots(np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)[:, 0])


def counts(graph: ChannelGraph, gone: Collection[int]) -> tuple[int, int]:
    """Return (weights, multiplications of one sample) of the layers that remain without some units."""
    weights = products = 0
    removed = np.fromiter(gone, dtype=np.int64, count=len(gone))
    for layer in graph.layers:
        taken = int((~np.isin(layer.taken, removed)).sum())
        given = int((~np.isin(layer.given, removed)).sum())
        size = given * layer.kernel * (taken if layer.groups == 1 else layer.taken.size // layer.groups)
        weights, products = weights + size, products + size * layer.positions
    return weights, products


def remove(model: onnx.ModelProto, graph: ChannelGraph, gone: Collection[int]) -> onnx.ModelProto:
    """Return a copy of the model without these units. What reads them reads the rest as it did."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    removed = np.fromiter(gone, dtype=np.int64, count=len(gone))
    constants = initializers(copy)
    for (name, axis), units in graph.slots.items():
        keep = ~np.isin(units, removed)
        if not keep.all():
            sliced = np.compress(keep, array(constants[name]), axis=axis)
            constants[name].CopyFrom(numpy_helper.from_array(sliced, name))
    for node in copy.graph.node:
        if node.output[0] in graph.sizes:
            axes = graph.sizes[node.output[0]]
            kept = [int((~np.isin(units, removed)).sum()) for units in axes]
            _resize(copy, node, [units.size for units in axes], kept)
    del copy.graph.value_info[:]
    return copy


def _resize(model: onnx.ModelProto, node: onnx.NodeProto, before: list[int], kept: list[int]) -> None:
    """Set the groups of a Conv, the shape of a Reshape or the sizes of a Split whose outputs change their sizes."""
    if before == kept:
        return
    if node.op_type == "Conv":
        _set(node, "group", attributes(node)["group"] * kept[1] // before[1])
    elif node.op_type == "Reshape":
        asked = array(initializers(model)[node.input[1]]).tolist()
        new = [size if given > 0 else given for given, size in zip(asked, kept, strict=True)]
        _constant(model, node, 1, np.array(new, dtype=np.int64))
    else:
        rank = len(kept) // len(node.output)
        axis = attributes(node).get("axis", 0) % rank
        sizes = [kept[index * rank + axis] for index in range(len(node.output))]
        _split(model, node, sizes)


def _split(model: onnx.ModelProto, node: onnx.NodeProto, sizes: list[int]) -> None:
    by_attribute = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 1) < 13
    if by_attribute:
        _set(node, "split", sizes)
        return
    _drop(node, "num_outputs")
    _constant(model, node, 1, np.array(sizes, dtype=np.int64))


def _constant(model: onnx.ModelProto, node: onnx.NodeProto, place: int, values: Array) -> None:
    """Give a node a constant of its own: others may share the one it had."""
    name = f"{node.output[0]}_sizes"
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    if len(node.input) > place:
        node.input[place] = name
    else:
        node.input.append(name)


def _set(node: onnx.NodeProto, name: str, value: Any) -> None:
    _drop(node, name)
    node.attribute.append(helper.make_attribute(name, value))


def _drop(node: onnx.NodeProto, name: str) -> None:
    rest = [one for one in node.attribute if one.name != name]
    del node.attribute[:]
    node.attribute.extend(rest)
