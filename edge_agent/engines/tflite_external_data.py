"""A look at a TFLite file's bytes without an engine: does the model keep weights in another file?

The schema has had external buffers since 2025: a group names a path inside the model, like ONNX's external data. A
bundle's model is one file, so a model with such a group is refused before an engine sees it. Only the root table is
read, by `edge_io.tflite_tensors`; whether the rest holds together is the engine's to find out, in the trial's process.
"""

from __future__ import annotations

import struct

from edge_agent.errors import EngineError
from edge_io.tflite_tensors import has_external_buffers, is_tflite


def refuse_external_buffers(model: bytes, *, what: str) -> None:
    """Raise EngineError naming `what` if the TFLite model refers to another file or its root cannot be read."""
    if not is_tflite(model):
        raise EngineError("not a TFLite file", subject=what)
    try:
        external = has_external_buffers(model)
    except (ValueError, struct.error) as error:
        raise EngineError("not a TFLite file: cut short", subject=what) from error
    if external:
        raise EngineError("weights are in another file", subject=what, hint="save the model as one file")
