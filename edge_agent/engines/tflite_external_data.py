"""A look at a TFLite file's bytes without an engine: does the model keep weights in another file?

The schema has had external buffers since 2025: a group names a path inside the model, like ONNX's external data. A
bundle's model is one file, so a model with such a group is refused before an engine sees it. Only the root table is
read; whether the rest holds together is the engine's to find out, in the trial's process.
"""

from __future__ import annotations

import struct

from edge_agent.errors import EngineError

_IDENTIFIER = b"TFL3"
_EXTERNAL = (8, 9)
"""Fields of the table Model in LiteRT's schema.fbs: external_buffer_groups and external_buffers."""


def refuse_external_buffers(model: bytes, *, what: str) -> None:
    """Raise EngineError naming `what` if the TFLite model refers to another file or its root cannot be read."""
    if model[4:8] != _IDENTIFIER:
        raise EngineError("not a TFLite file", subject=what)
    try:
        external = any(_length(model, field) for field in _EXTERNAL)
    except struct.error as error:
        raise EngineError("not a TFLite file: cut short", subject=what) from error
    if external:
        raise EngineError("weights are in another file", subject=what, hint="save the model as one file")


def _length(model: bytes, field: int) -> int:
    """Return the length of a vector in the root table, 0 if the table has no such field (FlatBuffers internals)."""
    (table,) = struct.unpack_from("<I", model)
    (back,) = struct.unpack_from("<i", model, table)
    vtable = table - back
    if vtable < 0:
        raise struct.error
    (size,) = struct.unpack_from("<H", model, vtable)
    slot = 4 + 2 * field
    if slot + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", model, vtable + slot)
    if offset == 0:
        return 0
    (vector,) = struct.unpack_from("<I", model, table + offset)
    (length,) = struct.unpack_from("<I", model, table + offset + vector)
    return int(length)
