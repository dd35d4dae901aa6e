"""The walk: labels from the graph's inputs to its outputs, one rule an operator, then what has to hold everywhere.

Here: the state that rules work on. The rules are in `rules`, the result's form in `graph`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_compression.onnx_tools.graph import array, initializers
from edge_compression.pruning.channels.labels import ChannelLabels

Array = NDArray[Any]
Shape = tuple[int, ...]
MAX_LABELED = 1 << 20
"""Elements of a constant that get labels of their own; larger ones are no biases and scales, and stay as they are."""


@dataclass(frozen=True, kw_only=True)
class FlowLayer:
    """A convolution or matrix product with constant weights. `taken` and `given` are the labels of its input and output
    channels, `kernel` the weights of a pair of them, `positions` how often a sample passes through. With groups, inputs
    and outputs of a group are one set and weights are removed with their outputs."""

    node: onnx.NodeProto
    weight: str
    taken: Array
    given: Array
    kernel: int
    positions: int
    groups: int = 1


@dataclass(kw_only=True)
class Flow:
    """ChannelLabels while they flow. `shapes` are the tensors' shapes for one sample. `still`: labels and the axis
    along which sizes must not change. `slots`: labels of a constant's axis. `resized`: nodes whose constant sizes
    follow labels."""

    model: onnx.ModelProto
    shapes: Mapping[str, Shape]
    labels: ChannelLabels = field(default_factory=ChannelLabels)
    tensors: dict[str, Array] = field(default_factory=dict)
    slots: dict[tuple[str, int], Array] = field(default_factory=dict)
    still: list[tuple[Array, int]] = field(default_factory=list)
    layers: list[FlowLayer] = field(default_factory=list)
    resized: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(init=False)

    def __post_init__(self) -> None:
        self.constants = initializers(self.model)

    def get(self, name: str) -> Array:
        """Return the labels of a tensor; a constant's are its own at first, an input's or unknown tensor's stay."""
        if name not in self.tensors:
            known = self.constants.get(name)
            shape = tuple(known.dims) if known is not None else self.shapes.get(name, ())
            small = known is not None and math.prod(shape) <= MAX_LABELED
            self.tensors[name] = self.labels.fresh(shape) if small else _staying(shape)
        return self.tensors[name]

    def put(self, name: str, labels: Array) -> None:
        """Set the labels of a tensor made by a node, repeated to its shape."""
        self.tensors[name] = np.broadcast_to(labels, self.shapes[name])

    def value(self, name: str) -> Array | None:
        """Return a constant's values, None for what is computed or absent."""
        return array(self.constants[name]) if name in self.constants else None

    def slot(self, constant: str, axis: int, labels: Array) -> None:
        """Say that a constant's axis has these labels, one an index."""
        known = self.slots.setdefault((constant, axis), labels)
        self.labels.join(known, labels)

    def hold(self, labels: Array, axes: tuple[int, ...]) -> Array:
        """Demand that sizes along these axes stay; return the labels with one element along them."""
        self.still.extend((labels, axis) for axis in axes)
        return labels[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(labels.ndim))]

    def channels(self, name: str, axis: int) -> Array:
        """Return the labels along one axis of a tensor whose other axes keep their sizes."""
        labels = self.get(name)
        axis %= labels.ndim
        others = tuple(other for other in range(labels.ndim) if other != axis)
        return self.hold(labels, others).reshape(-1)

    def stop(self, node: onnx.NodeProto) -> None:
        """Let everything a node reads and makes stay: it is not understood."""
        for name in node.input:
            if name and name not in self.constants:
                self.labels.freeze(self.get(name))
        for name in node.output:
            if name in self.shapes:
                self.put(name, _staying(self.shapes[name]))

    def settle(self) -> None:
        """Join until every tensor stays rectangular whichever sets are removed: outputs keep their shape, labels vary
        along one axis of a tensor only, and not along those that were to be held."""
        for info in self.model.graph.output:
            self.labels.freeze(self.get(info.name))
        for name in {constant for constant, _ in self.slots} & set(self.tensors):
            self.labels.freeze(self.tensors[name])  # both a weight and an operand: whose channels is unclear
            for labels in (labels for (constant, _), labels in self.slots.items() if constant == name):
                self.labels.freeze(labels)
        before = -1
        while before != self.labels.changes:
            before = self.labels.changes
            for labels, axis in self.still:
                if axis in self.labels.varying(labels):
                    self.labels.freeze(labels)
            for labels in self.tensors.values():
                varying = self.labels.varying(labels)
                if len(varying) > 1:
                    self.labels.merge_along(labels, varying[1:])


Rule = Callable[[Flow, onnx.NodeProto], None]


def flow_through(model: onnx.ModelProto, shapes: Mapping[str, Shape], rules: Mapping[str, Rule]) -> Flow:
    """Return the labels of a whole graph. An operator without a rule, or with a graph inside, stops all it touches."""
    flow = Flow(model=model, shapes=shapes)
    for node in model.graph.node:
        rule = rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        known = all(name in shapes for name in node.output if name)
        inner = [one.g for one in node.attribute if one.HasField("g")]
        for name in (name for graph in inner for one in graph.node for name in one.input):
            flow.labels.freeze(flow.get(name))
        (rule if rule is not None and known and not inner else Flow.stop)(flow, node)
    flow.settle()
    return flow


def _staying(shape: Shape) -> Array:
    return np.broadcast_to(np.zeros((), dtype=np.int64), shape)
