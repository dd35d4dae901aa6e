"""The few things every pass does with an ONNX graph: bytes to model and back, a float session, names and constants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge_compression.pass_api import Feeds, PassError

Array = NDArray[Any]

STANDARD = ("", "ai.onnx")

SCALES_ALONG_AXES = 13
"""The first operator set whose DequantizeLinear takes one scale for each entry of an axis."""


UNLISTED_CONSTANTS = 4
"""The first IR version whose constants need not be inputs as well."""


def load(data: bytes) -> onnx.ModelProto:
    """Parse a model, with no constant listed among its inputs: old exporters did so, and tools take such a name for
    something that is fed. Raises google.protobuf's DecodeError, which the build reports."""
    model = onnx.load_model_from_string(data)
    constants = {tensor.name for tensor in model.graph.initializer}
    listed = [info for info in model.graph.input if info.name in constants]
    for info in listed:
        model.graph.input.remove(info)
    if listed:
        model.ir_version = max(model.ir_version, UNLISTED_CONSTANTS)
    return model


def save(model: onnx.ModelProto) -> bytes:
    """Return the model's bytes, fields in order, so that equal models are equal bytes, and nodes in the topological
    order the ONNX specification asks for (ONNX Runtime's quantizer leaves them out of it)."""
    _sort(model.graph)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _sort(graph: onnx.GraphProto) -> None:
    """Put the nodes of a graph after those they depend on, otherwise as they were."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    nodes = list(graph.node)
    needs = {
        index: sorted({makers[name] for name in names_read(node) if name in makers}) for index, node in enumerate(nodes)
    }
    order = list(TopologicalSorter(needs).static_order())
    if order != sorted(order):
        del graph.node[:]
        graph.node.extend(nodes[index] for index in order)


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Yield every name a node reads, also inside its subgraphs."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from names_read(inner)


def session(model: bytes | str, *, optimize: bool = True) -> onnxruntime.InferenceSession:
    """Return a quiet session on one core, for measuring a graph while it is being changed: builds run side by side.
    `model` is its bytes, or the path of one whose data is in files beside it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(opened: onnxruntime.InferenceSession, feeds: Feeds) -> list[Array]:
    """Return all outputs in order."""
    return list(opened.run(None, feeds))


def initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Return the graph's constants by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def array(tensor: onnx.TensorProto) -> Array:
    """Return a constant's values."""
    return numpy_helper.to_array(tensor)


def count_operators(model: onnx.ModelProto, kinds: Iterable[str]) -> int:
    """Return how many nodes are of one of these kinds."""
    wanted = set(kinds)
    return sum(node.op_type in wanted for node in model.graph.node)


def operators(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the distinct operators of a model, sorted, those of other domains as `domain:Operator`."""
    return tuple(
        sorted({f"{node.domain}:{node.op_type}" if node.domain else node.op_type for node in model.graph.node})
    )


def opset(model: onnx.ModelProto) -> int:
    """Return the version of the ONNX operators a model uses; the newest for one of other domains' operators only,
    which need not say any (onnxmltools' trees do not)."""
    declared = [entry.version for entry in model.opset_import if entry.domain in STANDARD]
    if declared:
        return max(declared)
    used = any(node.domain in STANDARD for node in model.graph.node)
    return 1 if used else int(onnx.defs.onnx_opset_version())


def upgraded(model: onnx.ModelProto, least: int) -> onnx.ModelProto:
    """Return the model with at least this operator set, the one given if it has it already.

    Raises PassError with the converter's words, which name the operator.
    """
    if opset(model) >= least:
        return model
    try:
        return onnx.version_converter.convert_version(model, least)
    except Exception as error:  # the converter raises anything
        what = f"needs operator set {least}, the model has {opset(model)} and cannot be converted: {str(error)[:300]}"
        raise PassError(what) from error


def with_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with every node named: the quantizer tells nodes apart by name."""
    for index, node in enumerate(model.graph.node):
        if not node.name:
            node.name = f"{node.op_type}_{index}"
    return model


def float_activations(model: onnx.ModelProto, kinds: frozenset[str]) -> list[str]:
    """Return the names of float tensors that go into or come out of nodes of these kinds and are not constants."""
    typed = onnx.shape_inference.infer_shapes(model).graph
    floats = {
        info.name
        for info in (*typed.value_info, *typed.input, *typed.output)
        if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    constants = set(initializers(model))
    names: dict[str, None] = {}
    for node in model.graph.node:
        if node.op_type in kinds:
            names.update(dict.fromkeys((*node.input, *node.output)))
    return [name for name in names if name in floats and name not in constants]


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Return a copy of the model whose only outputs are these tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy


def float_array(values: Any) -> Array:
    """Return values as float32, the only float type the quantizer takes ranges in."""
    return np.asarray(values, dtype=np.float32)


def attributes(node: Any) -> dict[str, Any]:
    """Return a node's attributes as Python values."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
