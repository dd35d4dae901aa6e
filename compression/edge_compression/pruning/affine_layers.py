"""Layers as affine maps: a convolution's or matrix product's rows with its bias as one more column, read and written.

What the rows should be is decided in `refit` and `prune_order`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edge_compression.onnx_tools.graph import array, attributes, initializers
from edge_compression.quantization.input_moments import as_rows, from_rows, inputs

Array = NDArray[Any]

MAX_COLUMNS = 4608
"""Inputs of one output, those of a 3 x 3 convolution of 512 channels; beyond it a matrix is inverted for minutes."""

POSITIONS = 128
"""Positions of a convolution taken from one sample: with hundreds of samples enough for thousands of columns."""


@dataclass(frozen=True, kw_only=True)
class Affine:
    """A layer without groups whose weights nobody shares: y = W x + b. `bias` is None where a constant would have to be
    added by a node of its own."""

    node: onnx.NodeProto
    weights: Array
    bias: str | None

    @property
    def output(self) -> str:
        """The tensor it makes, by which the same layer is found in another form of the model."""
        return str(self.node.output[0])

    def inputs(self, values: Array) -> Array:
        """Return what the rows are multiplied with, [positions, columns (+ 1)], from the layer's input."""
        found = inputs(self.node, self.weights, values, positions=POSITIONS)[0]
        return found if self.bias is None else np.hstack([found, np.ones((found.shape[0], 1), dtype=found.dtype)])

    def rows(self, model: onnx.ModelProto) -> Array:
        """Return W and, as the last column, b."""
        rows = as_rows(self.node, self.weights)[0].astype(np.float64)
        if self.bias is None:
            return rows
        known = initializers(model).get(self.bias)
        bias = np.zeros(rows.shape[0]) if known is None else array(known).astype(np.float64).reshape(-1)
        return np.hstack([rows, bias[:, None]])

    def write(self, model: onnx.ModelProto, rows: Array) -> None:
        """Set W and b in the model."""
        constants = initializers(model)
        own = constants[self.node.input[1]]
        weights = rows if self.bias is None else rows[:, :-1]
        shaped = from_rows(self.node, weights[None], self.weights.shape).astype(np.float32)
        own.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(shaped), own.name))
        if self.bias is None:
            return
        bias = rows[:, -1].astype(np.float32)
        if self.bias in constants:
            shape = tuple(constants[self.bias].dims)
            constants[self.bias].CopyFrom(numpy_helper.from_array(bias.reshape(shape), self.bias))
            return
        model.graph.initializer.append(numpy_helper.from_array(bias, self.bias))
        node = next(one for one in model.graph.node if one.output[0] == self.output)
        del node.input[2:]
        node.input.append(self.bias)


def affine_layers(model: onnx.ModelProto) -> dict[str, Affine]:
    """Return the layers that can be refitted by the tensor they make, in the graph's order."""
    constants = initializers(model)
    uses = Counter(name for node in model.graph.node for name in node.input)
    found = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in constants:
            continue
        weights = array(constants[node.input[1]])
        if uses[node.input[1]] > 1 or weights.dtype != np.float32 or not _plain(node, weights):
            continue
        layer = Affine(node=node, weights=weights, bias=_bias(model, node, uses))
        found[layer.output] = layer
    return found


def _plain(node: onnx.NodeProto, weights: Array) -> bool:
    known = attributes(node)
    if node.op_type == "Conv":
        return bool(known.get("group", 1) == 1 and weights[0].size <= MAX_COLUMNS)
    unscaled = known.get("alpha", 1.0) == known.get("beta", 1.0) == 1.0
    return weights.ndim == 2 and unscaled and not known.get("transA", 0) and max(weights.shape) <= MAX_COLUMNS


def _bias(model: onnx.ModelProto, node: onnx.NodeProto, uses: Counter[str]) -> str | None:
    """Return the name of the layer's own bias: an input, the constant that a following Add has, or a new one's."""
    constants = initializers(model)
    rows = as_rows(node, array(constants[node.input[1]])).shape[1]
    if node.op_type != "MatMul":
        own = node.input[2] if len(node.input) > 2 else ""
        if not own:
            return f"{node.output[0]}_bias"
        fits = own in constants and uses[own] == 1 and int(np.prod(constants[own].dims)) == rows
        return own if fits else None
    readers = [one for one in model.graph.node if node.output[0] in one.input]
    if len(readers) != 1 or readers[0].op_type != "Add":
        return None
    other = next((name for name in readers[0].input if name != node.output[0]), "")
    fits = other in constants and uses[other] == 1 and list(constants[other].dims) == [rows]
    return other if fits else None
