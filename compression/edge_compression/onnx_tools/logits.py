"""Which tensor a model's answer is compared by: what goes into a last Softmax, else the first output."""

from __future__ import annotations

import onnx


def logits_of(model: onnx.ModelProto) -> str:
    """Return the name of the logits, or of the first output when no Softmax or Sigmoid makes it: probabilities near 0
    and 1 hide how far answers are apart."""
    name = str(model.graph.output[0].name)
    maker = next((node for node in model.graph.node if name in node.output), None)
    return str(maker.input[0]) if maker is not None and maker.op_type in ("Softmax", "Sigmoid") else name
