"""A look at an ONNX file's bytes without protobuf: does any tensor keep its data in another file?

External data names a path inside the model, and engines have followed such paths out of their folder. A bundle's
model is one file, so a model with external data is refused before an engine sees it. The walk follows the message
types of onnx.proto (IR version 3 and later) that can contain a tensor, and nothing else.
"""

from __future__ import annotations

from edge_agent.errors import EngineError
from edge_contracts.protobuf import fields

_MAX_DEPTH = 64

# message type -> field number -> type of the message in it (onnx.proto; field numbers never change there)
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA = 13


def refuse_external_data(model: bytes, *, what: str) -> None:
    """Raise EngineError naming `what` if a tensor of the ONNX model refers to another file or the bytes are not a
    protobuf message."""
    # An external reference needs the key "location"; a file without the word cannot have one.
    if b"location" not in model:
        return
    try:
        external = _has_external(memoryview(model), 0, len(model), "model", 0)
    except (IndexError, ValueError) as error:
        raise EngineError(f"not an ONNX file: {error}", subject=what) from error
    if external:
        raise EngineError(
            "a tensor's data is in another file",
            subject=what,
            hint="save the model as one file: onnx.save_model(model, path, save_as_external_data=False)",
        )


def _has_external(model: memoryview, start: int, end: int, kind: str, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested deeper than {_MAX_DEPTH}")
    children = _CHILDREN[kind]
    for field, wire, first, last in fields(model, start, end):
        if kind == "tensor" and field == _EXTERNAL_DATA:
            return True
        if wire == 2 and field in children and _has_external(model, first, last, children[field], depth + 1):
            return True
    return False
