"""Outputs that no device is served: labels that are text, and probabilities as a list of dictionaries.

scikit-learn's converters write a ZipMap behind a classifier unless they are told not to, and the classes' names as
the first output. What is under both is an array of probabilities: it becomes the output, under the name it had.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

ZIPMAP = "ZipMap"


def servable_outputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """Cut off, in place, every ZipMap and every output of text beside another output; return in words what was done."""
    done = [_unzip(model, node) for node in list(model.graph.node) if node.op_type == ZIPMAP]
    texts = [info for info in model.graph.output if info.type.tensor_type.elem_type == TensorProto.STRING]
    if len(texts) < len(model.graph.output):
        for info in texts:
            model.graph.output.remove(info)
            done.append(f"the output {info.name} is text and left out")
    return tuple(done)


def has_text_outputs(model: onnx.ModelProto) -> bool:
    """Return whether `servable_outputs` would change the model."""
    kinds = [info.type.tensor_type.elem_type == TensorProto.STRING for info in model.graph.output]
    return any(node.op_type == ZIPMAP for node in model.graph.node) or (any(kinds) and not all(kinds))


def class_names(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the classes' names that a classifier has as text, in the order of its probabilities; empty where it has
    none or several lists of them."""
    found = {
        tuple(name.decode(errors="replace") for name in attribute.strings)
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.name in ("classlabels_strings", "classlabels_string") and attribute.strings
    }
    return found.pop() if len(found) == 1 else ()


def _unzip(model: onnx.ModelProto, node: onnx.NodeProto) -> str:
    """Let the array that a ZipMap reads stand for its output."""
    source, made = node.input[0], node.output[0]
    model.graph.node.remove(node)
    for other in model.graph.node:
        other.output[:] = [made if name == source else name for name in other.output]
        other.input[:] = [made if name == source else name for name in other.input]
    for index, info in enumerate(model.graph.output):
        if info.name == made:
            classes = sum(len(one.strings) or len(one.ints) for one in node.attribute) or None
            array = helper.make_tensor_value_info(made, TensorProto.FLOAT, [None, classes])
            model.graph.output[index].CopyFrom(array)
    return f"the list of dictionaries {made} is an array of probabilities"
