"""What each operator does to channel labels. An operator that is not here stops all channels it touches.

A rule reads the labels of a node's inputs, joins what can only be removed together, and sets the labels of the outputs.
Where a rule is in doubt it lets channels stay. Operators that move elements are in `shape_rules`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx

from edge_compression.onnx_tools.graph import attributes
from edge_compression.pruning.channels.flow import Array, Flow, FlowLayer, Rule
from edge_compression.pruning.channels.shape_rules import concatenation, gather, resampling, reshape, split, transpose

ELEMENTWISE = [
    "Abs",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tanh",
    "ThresholdedRelu",
]
BROADCASTING = [
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "Less",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
]
POOLS = ["AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool"]
REDUCTIONS = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
]


def elementwise(flow: Flow, node: onnx.NodeProto) -> None:
    flow.put(node.output[0], flow.get(node.input[0]))
    for name in node.output[1:]:
        flow.put(name, flow.get(node.input[0]))


def broadcasting(flow: Flow, node: onnx.NodeProto) -> None:
    shape = flow.shapes[node.output[0]]
    made, constant = _padded(flow, node.input[0], len(shape)), node.input[0] in flow.constants
    for name in node.input[1:]:
        other = _padded(flow, name, len(shape))
        made = _combined(flow, (made, constant), (other, name in flow.constants))
        constant = constant and name in flow.constants
    flow.put(node.output[0], made)


def _padded(flow: Flow, name: str, rank: int) -> Array:
    labels = flow.get(name)
    return labels[(None,) * (rank - labels.ndim)] if labels.ndim < rank else labels


def _combined(flow: Flow, a: tuple[Array, bool], b: tuple[Array, bool]) -> Array:
    """Return the labels of two operands' elementwise result. An element that is repeated beside different channels does
    not depend on any of them; the channels depend on it only if it could go, so a computed one stays."""
    shape = np.broadcast_shapes(a[0].shape, b[0].shape)
    repeated = [_repeats(flow, one[0], other[0]) for one, other in ((a, b), (b, a))]
    if not any(repeated):
        flow.labels.join(a[0], b[0])
        return np.broadcast_to(a[0], shape) if a[0].size >= b[0].size else np.broadcast_to(b[0], shape)
    small, big = (a, b) if repeated[0] else (b, a)
    if not small[1]:
        flow.labels.freeze(small[0])
    varying = flow.labels.varying(big[0])
    if all(repeated) or any(small[0].shape[axis] > 1 for axis in varying):
        flow.labels.freeze(big[0])
    return np.broadcast_to(big[0], shape)


def _repeats(flow: Flow, small: Array, big: Array) -> bool:
    return any(small.shape[axis] == 1 for axis in flow.labels.varying(big))


def convolution(flow: Flow, node: onnx.NodeProto) -> None:
    weight = flow.value(node.input[1])
    if weight is None:
        flow.stop(node)
        return
    groups = attributes(node).get("group", 1)
    taken, given = flow.channels(node.input[0], 1), flow.labels.fresh((weight.shape[0],))
    if groups == 1:
        flow.slot(node.input[1], 1, taken)
    else:
        flow.labels.join(taken.reshape(groups, -1), taken.reshape(groups, -1)[:, :1])
        flow.labels.join(given.reshape(groups, -1), taken.reshape(groups, -1)[:, :1])
        flow.resized.append(node)
    flow.slot(node.input[1], 0, given)
    if len(node.input) > 2 and node.input[2]:
        _sliced(flow, node.input[2], given)
    shape = flow.shapes[node.output[0]]
    flow.layers.append(
        FlowLayer(
            node=node,
            weight=node.input[1],
            taken=taken,
            given=given,
            kernel=math.prod(weight.shape[2:]),
            positions=math.prod(shape[2:]),
            groups=groups,
        )
    )
    flow.put(node.output[0], given.reshape(1, -1, *(1,) * (len(shape) - 2)))


def product(flow: Flow, node: onnx.NodeProto) -> None:
    """Gemm and MatMul: with a constant matrix on the right a layer; of two activations, attention's pattern."""
    known = attributes(node)
    weight = flow.value(node.input[1])
    if weight is None and node.op_type == "MatMul" and node.input[0] not in flow.constants:
        _two_activations(flow, node)
        return
    if weight is None or weight.ndim != 2 or known.get("transA", 0) or node.input[0] in flow.constants:
        flow.stop(node)
        return
    turned = known.get("transB", 0)
    taken, given = flow.channels(node.input[0], -1), flow.labels.fresh((weight.shape[0 if turned else 1],))
    flow.slot(node.input[1], 1 if turned else 0, taken)
    flow.slot(node.input[1], 0 if turned else 1, given)
    shape = flow.shapes[node.output[0]]
    if len(node.input) > 2 and node.input[2]:
        _sliced(flow, node.input[2], given)
    positions = math.prod(shape[:-1])
    flow.layers.append(
        FlowLayer(node=node, weight=node.input[1], taken=taken, given=given, kernel=1, positions=positions)
    )
    flow.put(node.output[0], given)


def _two_activations(flow: Flow, node: onnx.NodeProto) -> None:
    """Everything in one matrix product is one set, so that a head goes with its queries, keys and values."""
    left, right = flow.get(node.input[0]), flow.get(node.input[1])
    if left.ndim < 3 or left.shape[:-2] != right.shape[:-2]:
        flow.stop(node)
        return
    matrix = (left.ndim - 2, left.ndim - 1)
    flow.labels.merge_along(left, matrix)
    flow.labels.merge_along(right, matrix)
    flow.labels.join(left[..., :1, :1], right[..., :1, :1])
    flow.put(node.output[0], left[..., :1, :1])


def _sliced(flow: Flow, constant: str, labels: Array) -> None:
    """Slice a bias or scale with its channels; one that is computed, or has another shape, keeps them from going."""
    values = flow.value(constant)
    if values is not None and values.size == 1:
        return
    if values is None or values.shape[-1] != labels.size or values.size != labels.size:
        flow.labels.freeze(labels)
        return
    flow.slot(constant, values.ndim - 1, labels)


def normalization(flow: Flow, node: onnx.NodeProto) -> None:
    """Batch and instance normalization: each channel by itself, with its own scale and offset."""
    labels = flow.channels(node.input[0], 1)
    for name in node.input[1:]:
        _sliced(flow, name, labels)
    elementwise(flow, node)


def softmax(flow: Flow, node: onnx.NodeProto) -> None:
    labels = flow.get(node.input[0])
    flow.hold(labels, (attributes(node).get("axis", -1) % labels.ndim,))
    flow.put(node.output[0], labels)


def pool(flow: Flow, node: onnx.NodeProto) -> None:
    labels = flow.get(node.input[0])
    held = flow.hold(labels, tuple(range(2, labels.ndim)))
    for name in filter(None, node.output):
        flow.put(name, held)


def reduction(flow: Flow, node: onnx.NodeProto) -> None:
    labels, known = flow.get(node.input[0]), attributes(node)
    axes = known.get("axes")
    if axes is None and len(node.input) > 1 and node.input[1]:
        values = flow.value(node.input[1])
        if values is None:
            flow.stop(node)
            return
        axes = values.tolist()
    chosen = tuple(axis % labels.ndim for axis in (range(labels.ndim) if axes is None else axes))
    held = flow.hold(labels, chosen)
    flow.put(node.output[0], held if known.get("keepdims", 1) else held.reshape(flow.shapes[node.output[0]]))


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **dict.fromkeys(BROADCASTING, broadcasting),
    **dict.fromkeys(POOLS, pool),
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), reshape),
    **dict.fromkeys(("Pad", "Resize", "Slice"), resampling),
    **dict.fromkeys(("Gemm", "MatMul"), product),
    **dict.fromkeys(("LogSoftmax", "Softmax"), softmax),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), normalization),
    "Concat": concatenation,
    "Conv": convolution,
    "Gather": gather,
    "Split": split,
    "Transpose": transpose,
}
