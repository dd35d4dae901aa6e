"""Which constants of a graph are weights, along which axis their channels lie, and rounding them to few bits.

Here: looking and arithmetic. What is put in their place is the business of the weight-only passes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_compression.onnx_tools.graph import attributes, names_read
from edge_compression.onnx_tools.graph_index import GraphIndex
from edge_compression.onnx_tools.inner_graphs import all_nodes, inner_graphs

Array = NDArray[Any]

MIN_VALUES = 256
"""Constants of fewer values are left: their scales and the nodes that unpack them would outweigh what is saved."""

LARGEST = {8: 127, 4: 7}
"""Largest symmetric integers, by bits."""

MANY_LEVELS = 64
CLIPPING = (0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of the largest weight that fewer than `MANY_LEVELS` levels are tried to span."""

WEIGHT_INPUTS = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (1,),
    "MatMul": (0, 1),
    "GRU": (1, 2),
    "LSTM": (1, 2),
    "RNN": (1, 2),
    "Attention": (1,),
    "Gather": (0,),
}
"""Inputs that can be weights, by operator; of recurrent ones those of the input and of the state."""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A float constant that is stored in fewer bits, its values in float32: its channels lie along `axis`, `nodes` read
    it, some of them in graphs inside the main one if `inside`. `half`: the graph has it in float16."""

    name: str
    values: Array
    axis: int
    nodes: tuple[onnx.NodeProto, ...]
    inside: bool = False
    half: bool = False

    @property
    def looked_up(self) -> bool:
        """Whether rows are taken out of it one by one: unpacking all of them for that would be waste."""
        return not (self.inside or self.half) and all(node.op_type == "Gather" for node in self.nodes)


def find_weights(model: onnx.ModelProto, operators: tuple[str, ...]) -> list[Weight]:
    """Return the weights that only nodes of these kinds read, also nodes of inner graphs, in the order of the graph's
    constants; empty `operators` means all of `WEIGHT_INPUTS`. Constants that two nodes use along different axes are
    left out, as are those that a graph hands on."""
    view = GraphIndex(model)
    kinds = frozenset(operators or WEIGHT_INPUTS)
    readers = _readers(model.graph)
    inner = {name for node in view.nodes for name in set(names_read(node)) - set(node.input)}
    given = set(_given(model.graph))
    found = []
    for tensor in model.graph.initializer:
        nodes = readers.get(tensor.name, [])
        half = tensor.data_type == onnx.TensorProto.FLOAT16
        if not (half or tensor.data_type == onnx.TensorProto.FLOAT) or tensor.name in given or not nodes:
            continue
        axes = {_axis(node, tensor.name, len(tensor.dims)) if node.op_type in kinds else None for node in nodes}
        axis = axes.pop()
        if axes or axis is None or np.prod(tensor.dims) < MIN_VALUES:
            continue
        values = np.asarray(view.constant(tensor.name), np.float32)
        inside = tensor.name in inner
        found.append(Weight(name=tensor.name, values=values, axis=axis, nodes=tuple(nodes), inside=inside, half=half))
    return found


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Return the nodes that read each tensor, those of inner graphs too, each once."""
    found: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in all_nodes(graph):
        for name in dict.fromkeys(node.input):
            found[name].append(node)
    return found


def _given(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield what a graph and those inside it give out."""
    yield from (info.name for info in graph.output)
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from _given(inner)


def _axis(node: onnx.NodeProto, name: str, dimensions: int) -> int | None:
    """Return the axis whose entries make different outputs; None where the constant is no weight of the node."""
    places = [place for place, taken in enumerate(node.input) if taken == name]
    if len(places) != 1 or places[0] not in WEIGHT_INPUTS[node.op_type] or dimensions < 2:
        return None
    known = attributes(node)
    if node.op_type == "Gather":
        return dimensions - 1 if known.get("axis", 0) == 0 else None
    if node.op_type == "MatMul":
        return dimensions - 1 if places[0] == 1 else dimensions - 2
    if node.op_type == "ConvTranspose":
        return 1 if known.get("group", 1) == 1 else None
    if node.op_type in ("GRU", "LSTM", "RNN"):
        return 1
    return 0 if node.op_type == "Conv" or known.get("transB", 0) else 1


def rounded(values: Array, axis: int, *, largest: int, per_channel: bool) -> tuple[Array, Array]:
    """Return symmetric integers in int8, |q| <= `largest`, and their float32 scale: one number, or one for each entry
    of `axis`. Nearest rounding; a channel of zeros has the scale one.

    Few levels are spread over less than the largest weight where that leaves a smaller squared error.
    """
    others = tuple(other for other in range(values.ndim) if other != axis) if per_channel else None
    reach = np.abs(values).max(axis=others)
    best = widest = np.where(reach > 0, reach / largest, 1.0).astype(np.float32)
    least = _squared_error(values, best, axis, largest, others)
    for share in CLIPPING if largest < MANY_LEVELS else ():
        scale = (widest * share).astype(np.float32)
        error = _squared_error(values, scale, axis, largest, others)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return _integers(values, best, axis, largest).astype(np.int8), best


def _squared_error(values: Array, scale: Array, axis: int, largest: int, others: tuple[int, ...] | None) -> Array:
    steps = along(scale, axis, values.ndim)
    gap = _integers(values, scale, axis, largest) * steps - values
    return np.asarray((gap * gap).sum(axis=others))


def _integers(values: Array, scale: Array, axis: int, largest: int) -> Array:
    return np.clip(np.rint(values / along(scale, axis, values.ndim)), -largest, largest)


def along(scale: Array, axis: int, dimensions: int) -> Array:
    """Return a scale of one number or of one axis in a shape that broadcasts against the weights."""
    return scale if scale.ndim == 0 else scale.reshape([-1 if place == axis else 1 for place in range(dimensions)])
