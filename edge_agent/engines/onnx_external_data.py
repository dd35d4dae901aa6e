"""A look at an ONNX file's bytes without protobuf: does any tensor keep its data in another file?

External data names a path inside the model, and engines have followed such paths out of their folder. A bundle's
model is one file, so a model with external data is refused before an engine sees it. The walk is in
`edge_io.onnx_tensors`.
"""

from __future__ import annotations

from edge_agent.errors import EngineError
from edge_io.onnx_tensors import tensor_messages
from edge_io.protobuf import fields

_EXTERNAL_DATA = 13
"""Field of TensorProto."""


def refuse_external_data(model: bytes, *, what: str) -> None:
    """Raise EngineError naming `what` if a tensor of the ONNX model refers to another file or the bytes are not a
    protobuf message."""
    # An external reference needs the key "location"; a file without the word cannot have one.
    if b"location" not in model:
        return
    try:
        view = memoryview(model)
        external = any(field == _EXTERNAL_DATA for span in tensor_messages(view) for field, *_ in fields(view, *span))
    except (IndexError, ValueError) as error:
        raise EngineError(f"not an ONNX file: {error}", subject=what) from error
    if external:
        raise EngineError(
            "a tensor's data is in another file",
            subject=what,
            hint="save the model as one file: onnx.save_model(model, path, save_as_external_data=False)",
        )
