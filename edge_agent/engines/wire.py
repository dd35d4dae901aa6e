"""A look at an ONNX file's bytes without protobuf: does any tensor keep its data in another file?

External data names a path inside the model, and engines have followed such paths out of their folder. A bundle's
model is one file, so a model with external data is refused before an engine sees it. The walk follows the message
types of onnx.proto (IR version 3 and later) that can contain a tensor, and nothing else.
"""

from __future__ import annotations

from edge_agent.errors import EngineError

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
        external = _has_external(memoryview(model), "model", 0)
    except (IndexError, ValueError) as error:
        raise EngineError(f"not an ONNX file: {error}", subject=what) from error
    if external:
        raise EngineError(
            "a tensor's data is in another file",
            subject=what,
            hint="save the model as one file: onnx.save_model(model, path, save_as_external_data=False)",
        )


def _has_external(message: memoryview, kind: str, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested deeper than {_MAX_DEPTH}")
    children = _CHILDREN[kind]
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        field, start = key >> 3, position
        start, position = _skip(message, key & 7, start)
        if kind == "tensor" and field == _EXTERNAL_DATA:
            return True
        if field in children and _has_external(message[start:position], children[field], depth + 1):
            return True
    return False


def _skip(message: memoryview, wire_type: int, position: int) -> tuple[int, int]:
    """Return where the field's content starts and ends."""
    start = position
    if wire_type == 0:
        _, end = _varint(message, position)
    elif wire_type == 1:
        end = position + 8
    elif wire_type == 2:
        size, start = _varint(message, position)
        end = start + size
    elif wire_type == 5:
        end = position + 4
    else:
        raise ValueError(f"wire type {wire_type}")
    if end > len(message):
        raise ValueError("cut short")
    return start, end


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("number too long")
