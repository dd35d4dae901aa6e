"""What each ONNX operator is in torch, for the operators a graph can be trained with.

A function takes torch itself, the node and its inputs (None for one left out) and returns the output, or all of them.
Sizes that a model fixes for one sample are read as "the batch" at the first axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx

from edge_compression.onnx_tools.graph import attributes
from edge_compression.quantization.input_moments import padding

Tensor = Any
Inputs = list[Any]
Operator = Callable[[Any, onnx.NodeProto, Inputs], Any]


def _windows(torch: Any, node: onnx.NodeProto, x: Tensor, kernel: list[int], value: float) -> tuple[Tensor, Any]:
    """Return the input with the padding that attributes ask for, and the strides and dilations of its windows."""
    known = attributes(node)
    strides = known.get("strides") or [1] * len(kernel)
    dilations = known.get("dilations") or [1] * len(kernel)
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    pairs = padding(known, tuple(x.shape[2:]), reach, strides)
    flat = [int(amount) for pair in reversed(pairs) for amount in pair]
    return torch.nn.functional.pad(x, flat, value=value) if any(flat) else x, (strides, dilations)


def _convolution(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:
    x, weight = taken[:2]
    x, (strides, dilations) = _windows(torch, node, x, list(weight.shape[2:]), 0.0)
    convolve = getattr(torch.nn.functional, f"conv{weight.dim() - 2}d")
    bias = taken[2] if len(taken) > 2 else None
    groups = attributes(node).get("group", 1)
    return convolve(x, weight, bias, stride=strides, dilation=dilations, groups=groups)


def _max_pool(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:
    kernel = list(attributes(node)["kernel_shape"])
    x, (strides, dilations) = _windows(torch, node, taken[0], kernel, float("-inf"))
    pool = getattr(torch.nn.functional, f"max_pool{len(kernel)}d")
    return pool(x, kernel, stride=strides, dilation=dilations, ceil_mode=bool(attributes(node).get("ceil_mode", 0)))


def _average_pool(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:
    kernel = list(attributes(node)["kernel_shape"])
    x, (strides, _) = _windows(torch, node, taken[0], kernel, 0.0)
    pool = getattr(torch.nn.functional, f"avg_pool{len(kernel)}d")
    found = pool(x, kernel, stride=strides)
    if attributes(node).get("count_include_pad", 0) or x.shape == taken[0].shape:
        return found
    ones, _ = _windows(torch, node, torch.ones_like(taken[0]), kernel, 0.0)
    return found / pool(ones, kernel, stride=strides)


def _gemm(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:  # noqa: ARG001 - the form of every operator
    known = attributes(node)
    a = taken[0].T if known.get("transA", 0) else taken[0]
    b = taken[1].T if known.get("transB", 0) else taken[1]
    made = known.get("alpha", 1.0) * (a @ b)
    return made + known.get("beta", 1.0) * taken[2] if len(taken) > 2 and taken[2] is not None else made


def _clip(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:
    known = attributes(node)
    low, high = ([*taken[1:], None, None] if len(taken) > 1 else [known.get("min"), known.get("max")])[:2]
    return torch.clamp(taken[0], min=low, max=high)


def _prelu(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:  # noqa: ARG001 - the form of every operator
    return torch.where(taken[0] >= 0, taken[0], taken[0] * taken[1])


def _normalized(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:
    """BatchNormalization as it infers: with the statistics of the original's training."""
    shape = [1, -1] + [1] * (taken[0].dim() - 2)
    scale, offset, mean, variance = (one.reshape(shape) for one in taken[1:5])
    return (taken[0] - mean) / torch.sqrt(variance + attributes(node).get("epsilon", 1e-5)) * scale + offset


def _layer_norm(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:
    known = attributes(node)
    axis = known.get("axis", -1) % taken[0].dim()
    bias = taken[2] if len(taken) > 2 else None
    return torch.nn.functional.layer_norm(
        taken[0], list(taken[0].shape[axis:]), taken[1], bias, known.get("epsilon", 1e-5)
    )


def _axes(node: onnx.NodeProto, taken: Inputs) -> list[int]:
    known = attributes(node)
    if "axes" in known:
        return list(known["axes"])
    return taken[1].tolist() if len(taken) > 1 and taken[1] is not None else []


def _reduced(function: str) -> Operator:
    def reduce(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:
        axes = _axes(node, taken) or list(range(taken[0].dim()))
        return getattr(torch, function)(taken[0], dim=axes, keepdim=bool(attributes(node).get("keepdims", 1)))

    return reduce


def _global(function: str) -> Operator:
    def pool(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:  # noqa: ARG001 - the form of every operator
        return getattr(torch, function)(taken[0], dim=list(range(2, taken[0].dim())), keepdim=True)

    return pool


def _reshape(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:  # noqa: ARG001 - the form of every operator
    x, asked = taken[0], taken[1].tolist()
    sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(asked)]
    sizes[0] = x.shape[0] if sizes[0] == 1 else sizes[0]
    return x.reshape(sizes)


def _flatten(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:
    axis = attributes(node).get("axis", 1)
    return torch.flatten(taken[0], start_dim=axis) if axis == 1 else taken[0].flatten(0, axis - 1).flatten(1)


def _unsqueeze(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:
    found, axes = taken[0], _axes(node, taken)
    rank = found.dim() + len(axes)
    for axis in sorted(one % rank for one in axes):
        found = torch.unsqueeze(found, axis)
    return found


def _squeeze(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:
    axes = _axes(node, taken) or [axis for axis, size in enumerate(taken[0].shape) if size == 1 and axis > 0]
    return torch.squeeze(taken[0], tuple(axes))


def _transpose(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:
    return torch.permute(taken[0], attributes(node).get("perm") or tuple(reversed(range(taken[0].dim()))))


def _split(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:
    known = attributes(node)
    sizes = taken[1].tolist() if len(taken) > 1 else known.get("split")
    axis = known.get("axis", 0)
    return torch.split(taken[0], sizes or -(-taken[0].shape[axis] // len(node.output)), dim=axis)


def _gather(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:
    data, indices = taken
    axis = attributes(node).get("axis", 0) % data.dim()
    wrapped = torch.where(indices < 0, indices + data.shape[axis], indices).long()
    found = torch.index_select(data, axis, wrapped.reshape(-1))
    return found.reshape([*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]])


def _dequantized(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:  # noqa: ARG001 - the form of every operator
    integers, scale = taken[0], taken[1]
    shape = [1] * integers.dim()
    if scale.dim() == 1:
        shape[attributes(node).get("axis", 1)] = -1
    zero = taken[2].to(scale.dtype).reshape(shape) if len(taken) > 2 and taken[2] is not None else 0.0
    return (integers.to(scale.dtype) - zero) * scale.reshape(shape)


def _cast(torch: Any, node: onnx.NodeProto, taken: Inputs) -> Tensor:
    numpy_type = onnx.helper.tensor_dtype_to_np_dtype(attributes(node)["to"])
    return taken[0].to(getattr(torch, numpy_type.name))


def _of(function: Callable[..., Any]) -> Operator:
    """Return an operator that has no attributes."""
    return lambda torch, node, taken: function(torch, *taken)  # noqa: ARG005 - the form of every operator


OPERATORS: Mapping[str, Operator] = {
    "Add": _of(lambda torch, a, b: a + b),  # noqa: ARG005
    "AveragePool": _average_pool,
    "BatchNormalization": _normalized,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda torch, node, taken: torch.cat(taken, dim=attributes(node)["axis"]),
    "Conv": _convolution,
    "DequantizeLinear": _dequantized,
    "Div": _of(lambda torch, a, b: a / b),  # noqa: ARG005
    "Dropout": _of(lambda torch, x, *_: x),  # noqa: ARG005
    "Elu": lambda torch, node, taken: torch.nn.functional.elu(taken[0], attributes(node).get("alpha", 1.0)),
    "Equal": _of(lambda torch, a, b: a == b),  # noqa: ARG005
    "Erf": _of(lambda torch, x: torch.erf(x)),
    "Exp": _of(lambda torch, x: torch.exp(x)),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda torch, node, taken: torch.nn.functional.gelu(
        taken[0], approximate=attributes(node).get("approximate", b"none").decode()
    ),
    "Gemm": _gemm,
    "GlobalAveragePool": _global("mean"),
    "GlobalMaxPool": _global("amax"),
    "HardSigmoid": lambda torch, node, taken: torch.clamp(
        attributes(node).get("alpha", 0.2) * taken[0] + attributes(node).get("beta", 0.5), 0.0, 1.0
    ),
    "HardSwish": _of(lambda torch, x: torch.nn.functional.hardswish(x)),
    "Identity": _of(lambda torch, x: x),  # noqa: ARG005
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda torch, node, taken: torch.nn.functional.leaky_relu(
        taken[0], attributes(node).get("alpha", 0.01)
    ),
    "MatMul": _of(lambda torch, a, b: a @ b),  # noqa: ARG005
    "MaxPool": _max_pool,
    "Mul": _of(lambda torch, a, b: a * b),  # noqa: ARG005
    "Not": _of(lambda torch, x: torch.logical_not(x)),
    "PRelu": _prelu,
    "Pow": _of(lambda torch, a, b: torch.pow(a, b)),
    "ReduceMax": _reduced("amax"),
    "ReduceMean": _reduced("mean"),
    "ReduceSum": _reduced("sum"),
    "Relu": _of(lambda torch, x: torch.relu(x)),
    "Reshape": _reshape,
    "Sigmoid": _of(lambda torch, x: torch.sigmoid(x)),
    "Softmax": lambda torch, node, taken: torch.softmax(taken[0], dim=attributes(node).get("axis", -1)),
    "Softplus": _of(lambda torch, x: torch.nn.functional.softplus(x)),
    "Split": _split,
    "Sqrt": _of(lambda torch, x: torch.sqrt(x)),
    "Squeeze": _squeeze,
    "Sub": _of(lambda torch, a, b: a - b),  # noqa: ARG005
    "Tanh": _of(lambda torch, x: torch.tanh(x)),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _of(lambda torch, condition, a, b: torch.where(condition, a, b)),
}
