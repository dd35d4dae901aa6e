"""Small graphs whose channels depend on each other in every way the channel graph knows, with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from support.makers import onnx_models

from edge_compression.onnx_tools.graph import array, initializers
from edge_compression.pruning.channels.graph import ChannelGraph
from edge_compression.quantization.input_moments import as_rows, from_rows

Array = NDArray[Any]
CLASSES = 5


def residual(seed: int = 0) -> onnx.ModelProto:
    """Conv and BatchNormalization, a residual block, an average, Gemm."""
    constants = {
        **_weights(seed, w0=(8, 3, 3, 3), w1=(12, 8, 3, 3), w2=(8, 12, 1, 1), w3=(CLASSES, 8), b0=(8,), b3=(CLASSES,)),
        **_weights(seed + 1, scale=(8,), offset=(8,), mean=(8,)),
        "variance": np.full(8, 1.5, np.float32),
    }
    nodes = [
        _node("Conv", "x w0 b0", "c0", pads=[1, 1, 1, 1]),
        _node("BatchNormalization", "c0 scale offset mean variance", "n0"),
        _node("Relu", "n0", "r0"),
        _node("Conv", "r0 w1", "c1", pads=[1, 1, 1, 1]),
        _node("Sigmoid", "c1", "r1"),
        _node("Conv", "r1 w2", "c2"),
        _node("Add", "r0 c2", "sum"),
        _node("GlobalAveragePool", "sum", "mean_"),
        _node("Flatten", "mean_", "flat"),
        _node("Gemm", "flat w3 b3", "y", transB=1),
    ]
    return _image_model(nodes, constants)


def depthwise(seed: int = 0) -> onnx.ModelProto:
    """A depthwise and a grouped convolution, PRelu with a slope a channel, padding, flattening into columns."""
    constants = {
        **_weights(seed, w0=(8, 3, 3, 3), dw=(8, 1, 3, 3), gw=(8, 2, 1, 1), w1=(6, 8, 1, 1), w2=(6 * 4, CLASSES)),
        **_weights(seed + 1, slope=(8, 1, 1), b2=(CLASSES,)),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    }
    nodes = [
        _node("Conv", "x w0", "c0"),
        _node("PRelu", "c0 slope", "r0"),
        _node("Conv", "r0 dw", "c1", group=8),
        _node("Conv", "c1 gw", "c2", group=4),
        _node("Pad", "c2 pads", "padded"),
        _node("Conv", "padded w1", "c3", strides=[2, 2]),
        _node("Flatten", "c3", "flat"),
        _node("MatMul", "flat w2", "product"),
        _node("Add", "product b2", "y"),
    ]
    return _image_model(nodes, constants)


def branches(seed: int = 0) -> onnx.ModelProto:
    """Channels last, two branches joined, split again and scaled, one of the parts resized."""
    constants = {
        **_weights(seed, w0=(8, 3, 1, 1), w1=(6, 3, 1, 1), w2=(4, 8, 1, 1), w3=(4, 6, 1, 1), w4=(CLASSES, 4)),
        **_weights(seed + 1, gain=(1, 14, 1, 1)),
        "parts": np.array([8, 6]),
        "scales": np.array([1.0, 1.0, 2.0, 2.0], np.float32),
        "axes": np.array([2, 3]),
    }
    nodes = [
        _node("Conv", "x w0", "a"),
        _node("Conv", "x w1", "b"),
        _node("Transpose", "a", "last_a", perm=[0, 2, 3, 1]),
        _node("Transpose", "b", "last_b", perm=[0, 2, 3, 1]),
        _node("Concat", "last_a last_b", "both", axis=3),
        _node("Transpose", "both", "first", perm=[0, 3, 1, 2]),
        _node("Mul", "first gain", "scaled"),
        _node("Split", "scaled parts", "left right", axis=1),
        _node("Conv", "left w2", "l"),
        _node("Resize", "right  scales", "large", mode="nearest"),
        _node("MaxPool", "large", "r", kernel_shape=[2, 2], strides=[2, 2]),
        _node("Conv", "r w3", "r3"),
        _node("Add", "l r3", "sum"),
        _node("ReduceMean", "sum", "mean", axes=[2, 3], keepdims=0),
        _node("Gemm", "mean w4", "y", transB=1),
    ]
    return _image_model(nodes, constants)


def attention(seed: int = 0) -> onnx.ModelProto:
    """One layer of self-attention with four heads in a packed projection, as exporters write it."""
    constants = {
        **_weights(seed, qkv=(12, 48), qb=(48,), out=(16, 12), up=(12, 24), down=(24, CLASSES)),
        "heads": np.array([-1, 6, 3, 4, 4]),
        "flat": np.array([-1, 6, 16]),
        "root": np.array(2.0, np.float32),
        **{name: np.array(index) for index, name in enumerate("qkv")},
    }
    nodes = [
        _node("MatMul", "x qkv", "p"),
        _node("Add", "p qb", "pb"),
        _node("Reshape", "pb heads", "split"),
        _node("Transpose", "split", "packed", perm=[2, 0, 3, 1, 4]),
        *(_node("Gather", f"packed {name}", f"{name}h", axis=0) for name in "qkv"),
        _node("Transpose", "kh", "kt", perm=[0, 1, 3, 2]),
        _node("MatMul", "qh kt", "scores"),
        _node("Div", "scores root", "scaled"),
        _node("Softmax", "scaled", "weights", axis=-1),
        _node("MatMul", "weights vh", "mixed"),
        _node("Transpose", "mixed", "back", perm=[0, 2, 1, 3]),
        _node("Reshape", "back flat", "joined"),
        _node("MatMul", "joined out", "o"),
        _node("Add", "x o", "res"),
        _node("MatMul", "res up", "u"),
        _node("Erf", "u", "e"),
        _node("MatMul", "e down", "d"),
        _node("ReduceMean", "d", "y", axes=[1], keepdims=0),
    ]
    return onnx_models.model(nodes, constants, [6, 12], [CLASSES], output="y")


def _weights(seed: int, **shapes: tuple[int, ...]) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape).astype(np.float32) * 0.5 for name, shape in shapes.items()}


def _node(kind: str, taken: str, made: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, taken.split(" "), made.split(" "), name=made, **attributes)


def _image_model(nodes: list[Any], constants: dict[str, Array]) -> onnx.ModelProto:
    used = {name: values for name, values in constants.items() if any(name in node.input for node in nodes)}
    return onnx_models.model(nodes, used, [3, 6, 6], [CLASSES], output="y")


def with_zeroed_columns(model: onnx.ModelProto, graph: ChannelGraph, gone: set[int]) -> onnx.ModelProto:
    """Return the model whose layers ignore the inputs that come from some units: what removing them has to equal."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = initializers(copy)
    for index, layer in enumerate(graph.layers):
        if layer.groups == 1:
            weights = array(constants[layer.weight])
            rows = as_rows(layer.node, weights).copy()
            rows[:, :, np.isin(graph.columns(index), sorted(gone))] = 0.0
            shaped = np.ascontiguousarray(from_rows(layer.node, rows, weights.shape))
            constants[layer.weight].CopyFrom(onnx.numpy_helper.from_array(shaped, layer.weight))
    return copy
