"""Constants and the graphs inside nodes: branches of If, bodies of Loop and Scan.

Here: inputs that always have one value become constants of the graph, so that a simplifier can choose branches by them,
and large constants of inner graphs move to the main graph, where passes look for weights. Neither changes an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Array = NDArray[Any]

CONSTANT = "_constant"
"""Appended to an input's name for the constant that stands in its place."""


def bind_inputs(model: onnx.ModelProto, values: Mapping[str, Array]) -> int:
    """Let everything that reads these inputs read constants instead; the inputs stay, so that the model is fed as
    before. Names that are no inputs of the graph are passed over. Return how many inputs were bound."""
    bound = 0
    for info in model.graph.input:
        if info.name not in values:
            continue
        constant = _unused(model.graph, info.name + CONSTANT)
        _read_instead(model.graph, {info.name: constant})
        model.graph.initializer.append(numpy_helper.from_array(values[info.name], constant))
        bound += 1
    return bound


def with_inputs_of(model: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with all inputs of the original, in its order: simplifiers drop those that nothing reads."""
    if [info.name for info in model.graph.input] != [info.name for info in original.graph.input]:
        kept = {info.name: info for info in model.graph.input}
        listed = [onnx.ValueInfoProto.FromString(_either(info, kept)) for info in original.graph.input]
        del model.graph.input[:]
        model.graph.input.extend(listed)
    return model


def _either(info: onnx.ValueInfoProto, kept: Mapping[str, onnx.ValueInfoProto]) -> bytes:
    data: bytes = kept.get(info.name, info).SerializeToString()
    return data


def hoist_constants(model: onnx.ModelProto, least: int) -> int:
    """Move constants of at least `least` values out of inner graphs, and out of nodes of the main one, to the main
    graph's own; return how many. What reads them sees them there, as it sees everything of the graphs around it."""
    moved = _hoist(model.graph, model.graph, least)
    for node in model.graph.node:
        for graph in inner_graphs(node):
            moved += _hoist_all(model.graph, graph, least)
    return moved


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs inside a node, not those inside them."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph and of all graphs inside it."""
    for node in graph.node:
        yield node
        for inner in inner_graphs(node):
            yield from all_nodes(inner)


def _hoist_all(main: onnx.GraphProto, graph: onnx.GraphProto, least: int) -> int:
    moved = _hoist(main, graph, least)
    for node in graph.node:
        for inner in inner_graphs(node):
            moved += _hoist_all(main, inner, least)
    return moved


def _hoist(main: onnx.GraphProto, graph: onnx.GraphProto, least: int) -> int:
    """Move the large constants of one graph, which may be the main one: then only those that nodes hold."""
    kept_here = {info.name for info in (*graph.input, *graph.output)}
    found = [] if graph is main else [one for one in graph.initializer if one.name not in kept_here]
    found = [one for one in found if _count(one) >= least]
    nodes = [node for node in graph.node if node.op_type == "Constant" and node.output[0] not in kept_here]
    held = [(node, tensor) for node in nodes if (tensor := _held(node)) is not None and _count(tensor) >= least]
    names: dict[str, str] = {}
    for name, tensor in [*((one.name, one) for one in found), *((node.output[0], one) for node, one in held)]:
        moved = onnx.TensorProto.FromString(tensor.SerializeToString())
        moved.name = names[name] = name if graph is main else _unused(main, name)
        main.initializer.append(moved)
    for one in found:
        graph.initializer.remove(one)
    for node, _ in held:
        graph.node.remove(node)
    _read_instead(graph, {old: new for old, new in names.items() if old != new})
    return len(names)


def _held(node: onnx.NodeProto) -> onnx.TensorProto | None:
    return next((one.t for one in node.attribute if one.name == "value" and one.HasField("t")), None)


def _count(tensor: onnx.TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count


def _unused(graph: onnx.GraphProto, name: str) -> str:
    """Return the name, or one like it, that nothing in this graph or the graphs inside it has."""
    taken = set(_names(graph))
    while name in taken:
        name += "_"
    return name


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (one.name for one in (*graph.input, *graph.initializer))
    for node in graph.node:
        yield from node.output
        yield from node.input
        for inner in inner_graphs(node):
            yield from _names(inner)


def _read_instead(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename what the nodes of a graph and of those inside it read, but for inner names that hide an outer one."""
    if not names:
        return
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        for inner in inner_graphs(node):
            own = {one.name for one in (*inner.input, *inner.initializer)}
            own |= {name for each in inner.node for name in each.output}
            _read_instead(inner, {old: new for old, new in names.items() if old not in own})
            for info in inner.output:  # a branch may pass on what the graph around it has
                if info.name not in own:
                    info.name = names.get(info.name, info.name)
