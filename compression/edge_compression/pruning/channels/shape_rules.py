"""What operators that move elements do to channel labels: labels are moved as the values are."""

from __future__ import annotations

import numpy as np
import onnx

from edge_compression.onnx_tools.graph import attributes
from edge_compression.pruning.channels.flow import Flow


def reshape(flow: Flow, node: onnx.NodeProto) -> None:
    if node.op_type == "Reshape":
        if flow.value(node.input[1]) is None:
            flow.stop(node)
            return
        flow.resized.append(node)
    flow.put(node.output[0], flow.get(node.input[0]).reshape(flow.shapes[node.output[0]]))


def transpose(flow: Flow, node: onnx.NodeProto) -> None:
    flow.put(node.output[0], np.transpose(flow.get(node.input[0]), attributes(node).get("perm")))


def concatenation(flow: Flow, node: onnx.NodeProto) -> None:
    joined = np.concatenate([flow.get(name) for name in node.input], axis=attributes(node)["axis"])
    flow.put(node.output[0], joined)


def split(flow: Flow, node: onnx.NodeProto) -> None:
    labels, start = flow.get(node.input[0]), 0
    axis = attributes(node).get("axis", 0) % labels.ndim
    for name in node.output:
        if name not in flow.shapes:
            flow.stop(node)
            return
        size = flow.shapes[name][axis]
        flow.put(
            name, labels[tuple(slice(start, start + size) if a == axis else slice(None) for a in range(labels.ndim))]
        )
        start += size
    flow.resized.append(node)


def resampling(flow: Flow, node: onnx.NodeProto) -> None:
    """Slice, Pad and Resize: axes whose size they change are held; Resize by sizes, not scales, is not followed."""
    labels, shape = flow.get(node.input[0]), flow.shapes[node.output[0]]
    sized = node.op_type == "Resize" and len(node.input) > 3 and node.input[3]
    if sized or len(shape) != labels.ndim or _backwards(flow, node):
        flow.stop(node)
        return
    changed = tuple(axis for axis in range(labels.ndim) if labels.shape[axis] != shape[axis])
    flow.put(node.output[0], flow.hold(labels, changed))


def _backwards(flow: Flow, node: onnx.NodeProto) -> bool:
    """Return whether a Slice may reverse an axis or a Pad may shift it, which sizes alone do not tell."""
    place = {"Slice": 4, "Pad": 1}.get(node.op_type, len(node.input))
    if len(node.input) <= place or not node.input[place]:
        return False
    values = flow.value(node.input[place])
    return values is None or bool(np.any(values < 0))


def gather(flow: Flow, node: onnx.NodeProto) -> None:
    if node.input[0] in flow.constants or flow.value(node.input[1]) is None:
        flow.stop(node)
        return
    labels = flow.get(node.input[0])
    axis = attributes(node).get("axis", 0) % labels.ndim
    chosen = np.take(labels, np.asarray(flow.value(node.input[1])), axis=axis)
    flow.hold(labels, (axis,))
    flow.put(node.output[0], chosen)
