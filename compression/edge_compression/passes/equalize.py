"""Cross-layer equalization: channels of two layers in a row brought to like ranges, the function left as it is.

What a layer's output channel is divided by, the next layer's input channel is multiplied with (Nagel et al. 2019,
arXiv:1906.04721, section 4.1). It holds through whatever scales with its input channel by channel: ReLU, poolings. It
does not hold through ReLU6, whose bound is the same for all channels: such pairs are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import onnx
from msgspec import Meta
from numpy.typing import NDArray
from onnx import numpy_helper

from edge_compression.onnx_tools.graph import array, attributes, initializers, load, save
from edge_compression.onnx_tools.graph_index import GraphIndex
from edge_compression.pass_api import Applied, Context, PassError
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format

Array = NDArray[Any]
LAYERS = ("Conv", "Gemm")
HOMOGENEOUS = frozenset(
    ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Identity")
)
"""Operators with f(s x) = s f(x) for every channel and s > 0."""

NO_PAIR = "no two layers in a row with only ReLU or poolings between"

MAX_ROUNDS = 20
CONVERGED = 1e-2
"""Largest change of any scale in a round after which no more rounds are made."""

MAX_SCALE = 1e3
"""Bound of one scale: a channel that is almost never used must not blow up its neighbors' rounding."""


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Two layers between which nothing but homogeneous operators stands."""

    first: onnx.NodeProto
    second: onnx.NodeProto


class Equalize(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="equalize"):
    """Equalize all pairs of Conv and Gemm layers with constant weights of their own, in at most `rounds` rounds.
    Raises PassError when there is no such pair."""

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = False

    rounds: Annotated[int, Meta(ge=1, le=100)] = MAX_ROUNDS

    def foresee(self, model: bytes, context: Context) -> None:  # noqa: ARG002 - the contract of passes that foresee
        if not _pairs(load(model)):
            raise PassError(NO_PAIR)

    def apply(self, model: bytes, context: Context) -> Applied:  # noqa: ARG002 - the contract of every pass
        graph = load(model)
        pairs = _pairs(graph)
        if not pairs:
            raise PassError(NO_PAIR)
        constants = initializers(graph)
        weights = {name: np.array(array(constants[name])) for pair in pairs for name in _parameters(pair)}
        largest = np.inf
        for _ in range(self.rounds):
            largest = max(_equalize(pair, weights) for pair in pairs)
            if largest < CONVERGED:
                break
        for name, values in weights.items():
            constants[name].CopyFrom(numpy_helper.from_array(values, name))
        return Applied(model=save(graph), changed={"pairs": len(pairs), "last_change": round(float(largest), 4)})


def _pairs(graph: onnx.ModelProto) -> list[_Pair]:
    view = GraphIndex(graph)
    pairs = []
    for node in view.nodes:
        following = view.only_consumer(node.output[0]) if _is_layer(view, node) else None
        while following is not None and following.op_type in HOMOGENEOUS:
            following = view.only_consumer(following.output[0])
        if following is not None and _is_layer(view, following) and _channels_match(view, node, following):
            pairs.append(_Pair(first=node, second=following))
    return pairs


def _is_layer(view: GraphIndex, node: onnx.NodeProto) -> bool:
    """Return whether a node is a layer whose weights and bias are constants that no other node reads."""
    if node.op_type not in LAYERS or (node.op_type == "Gemm" and attributes(node).get("transA", 0)):
        return False
    names = [name for name in node.input[1:] if name]
    return all(view.constant(name) is not None and len(view.consumers(name)) == 1 for name in names) and bool(names)


def _channels_match(view: GraphIndex, first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
    """Return whether the second layer reads exactly the first one's channels; grouped convolutions are left, depthwise
    ones are read one by one."""
    if first.op_type != second.op_type:
        return False
    outputs = np.asarray(view.constant(first.input[1])).shape[_output_axis(first)]
    weights = np.asarray(view.constant(second.input[1]))
    groups = attributes(second).get("group", 1)
    inputs = weights.shape[0] if groups > 1 else weights.shape[_input_axis(second)]
    return bool(outputs == inputs and (groups == 1 or (weights.shape[1] == 1 and groups == weights.shape[0])))


def _output_axis(node: onnx.NodeProto) -> int:
    return 0 if node.op_type == "Conv" or attributes(node).get("transB", 0) else 1


def _input_axis(node: onnx.NodeProto) -> int:
    """Return the axis of the input channels; a depthwise convolution has one for each output."""
    if node.op_type == "Conv":
        return 0 if attributes(node).get("group", 1) > 1 else 1
    return 1 - _output_axis(node)


def _parameters(pair: _Pair) -> list[str]:
    return [name for name in (*pair.first.input[1:3], pair.second.input[1]) if name]


def _equalize(pair: _Pair, weights: dict[str, Array]) -> float:
    """Bring one pair to like ranges, in place; return by how much the most changed channel changed."""
    first, second = weights[pair.first.input[1]], weights[pair.second.input[1]]
    given, taken = _reach(first, _output_axis(pair.first)), _reach(second, _input_axis(pair.second))
    used = (given > 0) & (taken > 0)
    scale = np.sqrt(np.divide(given, taken, out=np.ones_like(given), where=used)).clip(1 / MAX_SCALE, MAX_SCALE)
    weights[pair.first.input[1]] = first / _along(scale, _output_axis(pair.first), first.ndim)
    weights[pair.second.input[1]] = second * _along(scale, _input_axis(pair.second), second.ndim)
    if len(pair.first.input) > 2 and pair.first.input[2]:
        weights[pair.first.input[2]] = weights[pair.first.input[2]] / scale
    return float(np.abs(np.log(scale)).max())


def _reach(weights: Array, axis: int) -> Array:
    return np.asarray(np.abs(weights).max(axis=tuple(other for other in range(weights.ndim) if other != axis)))


def _along(scale: Array, axis: int, dimensions: int) -> Array:
    return scale.reshape([-1 if place == axis else 1 for place in range(dimensions)])
