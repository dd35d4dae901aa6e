"""Weight-only quantization: weights are stored in 8 or 4 bits, arithmetic stays in float.

What static and dynamic quantization leave in float (recurrent layers above all) shrinks as well, and no activation is
rounded. A DequantizeLinear stands before each weight; ONNX Runtime keeps it and unpacks the weight at every run.
`unpack_at_load` after it has that done once, which gives the original's speed back.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import onnx
from onnx import helper, numpy_helper

from edge_compression.onnx_tools.graph import SCALES_ALONG_AXES, load, save, upgraded
from edge_compression.onnx_tools.graph import operators as operators_of
from edge_compression.onnx_tools.inner_graphs import hoist_constants
from edge_compression.onnx_tools.precision import is_quantized
from edge_compression.pass_api import EIGHT_BIT_FLOOR, Applied, Changes, Context, NothingToDoError
from edge_compression.quantization.quantized_layers import QUANTIZED
from edge_compression.quantization.weights import LARGEST, MIN_VALUES, Weight, find_weights, rounded
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format

WIDE = "_wide"
"""Appended to the name of a float16 weight for its values in float32, as they are unpacked."""

MOST_NAMED = 5
"""Operators named of a graph that has no weights."""


class WeightOnly(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="weight_only"):
    """Store weights as symmetric integers of `bits`, one scale an output channel (an output column of a table) or,
    without `per_channel`, one a tensor. `operators` restricts it to weights of these kinds; empty means all of
    `weights.WEIGHT_INPUTS`. Four bits save bytes only after `unpack_at_load`. Raises PassError when there is nothing
    to store."""

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = True

    bits: Literal[8, 4] = 8
    per_channel: bool = True
    operators: tuple[str, ...] = ()

    def apply(self, model: bytes, context: Context) -> Applied:  # noqa: ARG002 - the contract of every pass
        graph = upgraded(load(model), SCALES_ALONG_AXES)
        weights = storable(graph, self.operators)
        for weight in weights:
            store(graph, weight, bits=self.bits, per_channel=self.per_channel)
        changed: Changes = {"weights": len(weights), "values": sum(weight.values.size for weight in weights)}
        halves = sum(weight.values.size for weight in weights if weight.half)
        if halves:
            changed[EIGHT_BIT_FLOOR] = round(halves / len(model), 3)
        return Applied(model=save(graph), changed=changed)


def storable(graph: onnx.ModelProto, operators: tuple[str, ...]) -> list[Weight]:
    """Return the weights to store, after moving those of inner graphs to the main one. Raises NothingToDoError when
    there are none."""
    hoist_constants(graph, MIN_VALUES)
    weights = find_weights(graph, operators)
    if weights:
        return weights
    if is_quantized(graph):
        raise NothingToDoError("no weights to store in fewer bits: the model is quantized already")
    kinds = ", ".join(operators_of(graph)[:MOST_NAMED])
    raise NothingToDoError(f"no weights to store in fewer bits in a graph of {kinds}")


def store(graph: onnx.ModelProto, weight: Weight, *, bits: int, per_channel: bool) -> None:
    """Put integers, their scale and a DequantizeLinear in a weight's place.

    Behind a Gather, which takes rows of integers as well as of floats, unless there are four bits: those become
    integers only by `unpack_at_load`.
    """
    integers, scale = rounded(weight.values, weight.axis, largest=LARGEST[bits], per_channel=per_channel)
    stored, scale_name = weight.name + QUANTIZED, weight.name + "_scale"
    constant = next(tensor for tensor in graph.graph.initializer if tensor.name == weight.name)
    constant.CopyFrom(numpy_helper.from_array(integers, stored))
    graph.graph.initializer.append(numpy_helper.from_array(scale, scale_name))
    if bits == 4 or not weight.looked_up:
        made = weight.name + WIDE if weight.half else weight.name
        unpack = helper.make_node("DequantizeLinear", [stored, scale_name], [made], axis=weight.axis)
        graph.graph.node.append(unpack)
        if weight.half:
            narrow = helper.make_node("Cast", [made], [weight.name], to=onnx.TensorProto.FLOAT16)
            graph.graph.node.append(narrow)
        return
    for node in weight.nodes:
        taken = node.output[0] + QUANTIZED
        unpack = helper.make_node("DequantizeLinear", [taken, scale_name], [node.output[0]], axis=-1)
        graph.graph.node.append(unpack)
        node.input[0], node.output[0] = stored, taken
