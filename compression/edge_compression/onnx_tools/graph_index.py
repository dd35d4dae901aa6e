"""An ONNX graph seen by its tensors: who makes one, who reads it, which are constant. For passes that match patterns.

A view is a picture of the moment it is made; passes match on it first, change the graph afterwards, and call
`drop_unused` at the end.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_compression.onnx_tools.graph import array, initializers, names_read

Array = NDArray[Any]


class GraphIndex:
    """Producers, consumers and constants of a model's main graph, by tensor name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.outputs = {info.name for info in model.graph.output}
        self._constants = initializers(model)
        self._producers = {name: node for node in self.nodes for name in node.output if name}
        self._consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self._consumers[name].append(node)

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor; None for inputs and constants."""
        return self._producers.get(name)

    def consumers(self, name: str) -> list[onnx.NodeProto]:
        """Return the nodes that read a tensor."""
        return self._consumers.get(name, [])

    def only_consumer(self, name: str) -> onnx.NodeProto | None:
        """Return the one node that reads a tensor, None if there are several or it leaves the graph."""
        readers = self.consumers(name)
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def constant(self, name: str) -> Array | None:
        """Return a constant's values, None for what is computed."""
        tensor = self._constants.get(name)
        return None if tensor is None else array(tensor)

    def scalar(self, name: str) -> float | None:
        """Return the value of a constant of one element."""
        values = self.constant(name)
        return float(values.reshape(())) if values is not None and values.size == 1 else None

    def with_constant(self, node: onnx.NodeProto) -> tuple[str, Array] | None:
        """Split a node of two inputs into the computed one and the constant's values; None for any other node."""
        if len(node.input) != 2:
            return None
        values = [self.constant(name) for name in node.input]
        if (values[0] is None) == (values[1] is None):
            return None
        place = 0 if values[0] is not None else 1
        return node.input[1 - place], np.asarray(values[place])


def drop_unused(model: onnx.ModelProto) -> int:
    """Remove the nodes no output depends on and the constants nothing reads; return how many nodes went."""
    producers = {name: index for index, node in enumerate(model.graph.node) for name in node.output if name}
    nodes = list(model.graph.node)
    wanted: set[int] = set()
    pending = [producers[info.name] for info in model.graph.output if info.name in producers]
    while pending:
        index = pending.pop()
        if index in wanted:
            continue
        wanted.add(index)
        pending.extend(producers[name] for name in names_read(nodes[index]) if name in producers)
    kept = [nodes[index] for index in sorted(wanted)]
    read = {name for node in kept for name in names_read(node)} | {info.name for info in model.graph.output}
    constants = [tensor for tensor in model.graph.initializer if tensor.name in read]
    copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in constants]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(copies)
    return len(nodes) - len(kept)
