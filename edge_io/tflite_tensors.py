"""Where the tensors lie in a TFLite file, by its flatbuffer offsets: no schema compiler, no engine.

Source: FlatBuffers' internals (tables, vtables, vectors) and LiteRT's schema.fbs, where field numbers never change.
Functions raise ValueError or struct.error where the bytes do not hold together.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from msgspec import Struct

IDENTIFIER = b"TFL3"

_SUBGRAPHS, _BUFFERS, _EXTERNAL = 2, 4, (8, 9)
"""Fields of the table Model; the last two are external_buffer_groups and external_buffers."""

_TENSORS = 0
"""Field of the table SubGraph."""

_SHAPE, _TYPE, _BUFFER, _NAME = 0, 1, 2, 3
"""Fields of the table Tensor."""

_DATA = 0
"""Field of the table Buffer."""


class TfliteTensor(Struct, frozen=True, kw_only=True):
    """A tensor with data: bytes `offset` to `offset + length` of the file. `type` is a TensorType of the schema,
    `shape` the shape's bytes (int32 each)."""

    name: bytes
    type: int
    shape: bytes
    offset: int
    length: int


def is_tflite(data: memoryview | bytes) -> bool:
    return bytes(data[4:8]) == IDENTIFIER


def has_external_buffers(data: memoryview | bytes) -> bool:
    """Return whether the model keeps weights in another file. Only the root table is read."""
    root = _u32(data, 0)
    return any(len(_vector(data, _field(data, root, field), check=False)) for field in _EXTERNAL)


def tensors(data: memoryview | bytes) -> Iterator[TfliteTensor]:
    """Walk Model.subgraphs[].tensors[] to Model.buffers[].data; a buffer shared by tensors is found once."""
    root = _u32(data, 0)
    buffers = _vector(data, _field(data, root, _BUFFERS))
    seen: set[int] = set()
    for subgraph in _tables(data, _field(data, root, _SUBGRAPHS)):
        for tensor in _tables(data, _field(data, subgraph, _TENSORS)):
            number = _field(data, tensor, _BUFFER)
            index = _u32(data, number) if number else 0
            if index in seen or index >= len(buffers):
                continue
            seen.add(index)
            buffer = buffers[index] + _u32(data, buffers[index])
            first, length = _span(data, _field(data, buffer, _DATA), 1)
            if length:
                kind = _field(data, tensor, _TYPE)
                yield TfliteTensor(
                    name=_content(data, _field(data, tensor, _NAME), 1),
                    type=data[kind] if kind else 0,
                    shape=_content(data, _field(data, tensor, _SHAPE), 4),
                    offset=first,
                    length=length,
                )


def _u32(data: memoryview | bytes, position: int) -> int:
    return int(struct.unpack_from("<I", data, position)[0])


def _field(data: memoryview | bytes, table: int, index: int) -> int:
    """Return where a table's field lies, or 0 if it is left out."""
    vtable = table - int(struct.unpack_from("<i", data, table)[0])
    if vtable < 0:
        raise ValueError("no vtable there")
    place = 4 + 2 * index
    if place + 2 > struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset = int(struct.unpack_from("<H", data, vtable + place)[0])
    return table + offset if offset else 0


def _vector(data: memoryview | bytes, field: int, *, check: bool = True) -> range:
    """Return the places of the 4-byte elements of a vector; without `check` they may lie behind the end."""
    if not field:
        return range(0)
    start = field + _u32(data, field)
    first, count = start + 4, _u32(data, start)
    if check and first + 4 * count > len(data):
        raise ValueError("cut short")
    return range(first, first + 4 * count, 4)


def _tables(data: memoryview | bytes, field: int) -> Iterator[int]:
    for place in _vector(data, field):
        yield place + _u32(data, place)


def _content(data: memoryview | bytes, field: int, width: int) -> bytes:
    first, length = _span(data, field, width)
    return bytes(data[first : first + length])


def _span(data: memoryview | bytes, field: int, width: int) -> tuple[int, int]:
    """Return where the bytes of a vector of `width`-byte elements lie and how many they are."""
    if not field:
        return 0, 0
    start = field + _u32(data, field)
    first, size = start + 4, width * _u32(data, start)
    if first + size > len(data):
        raise ValueError("cut short")
    return first, size
