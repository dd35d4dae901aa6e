"""Where the tensors lie in a model file: ONNX by its protobuf wire format, TFLite by its flatbuffer offsets.

No protobuf, no schema compiler and no engine, because a release engineer's machine has none. Only what a delta needs is
read: names, shapes, types and byte ranges. A file that is neither has no tensors, and neither has one that is damaged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from edge_contracts.protobuf import fields, varint

_MAX_DEPTH = 64
_SMALLEST_ATTRIBUTE = 64
"""Bytes of a node's attribute below which no tensor in it is worth a difference; most attributes are one number."""

_ONNX_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Message type -> field number -> type of the message in it, from onnx.proto, where field numbers never change."""

_ONNX_DIMS, _ONNX_TYPE, _ONNX_NAME = 1, 2, 8
_ONNX_DATA = {4: 4, 9: 0, 10: 8}
"""Fields of a TensorProto that hold plain bytes (float_data, raw_data, double_data) -> lane; 0: by its type."""

_ONNX_LANES = {1: 4, 4: 2, 5: 2, 6: 4, 7: 8, 10: 2, 11: 8, 12: 4, 13: 8, 14: 4, 15: 8, 16: 2}
"""TensorProto.DataType -> bytes of one lane where it is not one."""

_TFLITE_LANES = {0: 4, 1: 2, 2: 4, 4: 8, 7: 2, 8: 4, 10: 8, 11: 8, 12: 8, 15: 4, 16: 2, 18: 2}
"""TensorType -> bytes of one lane where it is not one."""


@dataclass(frozen=True, kw_only=True)
class ModelTensor:
    """Bytes `offset` to `offset + length` of a file: numbers of `lane` bytes. `kind` is what two tensors of two files
    must share to be compared: type and shape; `name` tells which of several it is."""

    name: bytes
    kind: bytes
    offset: int
    length: int
    lane: int


def find_tensors(data: memoryview) -> list[ModelTensor]:
    """Return the tensors of a model file in the order of their bytes, none overlapping another."""
    try:
        found = list(_tflite(data) if bytes(data[4:8]) == b"TFL3" else _onnx(data, 0, len(data), "model", 0))
    except (IndexError, ValueError, struct.error):
        return []
    apart: list[ModelTensor] = []
    for tensor in sorted(found, key=lambda tensor: tensor.offset):
        if not apart or tensor.offset >= apart[-1].offset + apart[-1].length:
            apart.append(tensor)
    return apart


def _onnx(data: memoryview, start: int, end: int, kind: str, depth: int) -> Iterator[ModelTensor]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    children = _ONNX_CHILDREN[kind]
    for field, wire, first, last in fields(data, start, end):
        child = children.get(field)
        if wire != 2 or child is None:
            continue
        if child == "attribute" and last - first < _SMALLEST_ATTRIBUTE:
            continue
        if child == "tensor":
            yield from _onnx_tensor(data, first, last)
        else:
            yield from _onnx(data, first, last, child, depth + 1)


def _onnx_tensor(data: memoryview, start: int, end: int) -> Iterator[ModelTensor]:
    name, kind, lane, place = b"", b"", 1, (0, 0)
    for field, wire, first, last in fields(data, start, end):
        if field == _ONNX_DIMS:
            kind += bytes(data[first:last]) + b"/"
        elif field == _ONNX_TYPE:
            kind += bytes(data[first:last]) + b":"
            lane = max(lane, _ONNX_LANES.get(varint(data, first)[0], 1))
        elif field == _ONNX_NAME:
            name = bytes(data[first:last])
        elif field in _ONNX_DATA and wire == 2:
            place = (first, last - first)
            lane = max(lane, _ONNX_DATA[field])
    if place[1]:
        yield ModelTensor(name=name, kind=kind, offset=place[0], length=place[1], lane=_fitting(lane, place[1]))


def _tflite(data: memoryview) -> Iterator[ModelTensor]:
    """Walk Model.subgraphs[].tensors[] to Model.buffers[].data; a buffer shared by tensors is found once."""
    model = _u32(data, 0)
    buffers = _vector(data, _field(data, model, 4))
    seen: set[int] = set()
    for subgraph in _tables(data, _field(data, model, 2)):
        for tensor in _tables(data, _field(data, subgraph, 0)):
            shape, kind = _field(data, tensor, 0), _field(data, tensor, 1)
            number, name = _field(data, tensor, 2), _field(data, tensor, 3)
            index = _u32(data, number) if number else 0
            if index in seen or index >= len(buffers):
                continue
            seen.add(index)
            content = _field(data, buffers[index] + _u32(data, buffers[index]), 0)
            first, length = _bytes(data, content, 1)
            if not length:
                continue
            type_ = data[kind] if kind else 0
            shape_at, shape_bytes = _bytes(data, shape, 4)
            name_at, name_bytes = _bytes(data, name, 1)
            yield ModelTensor(
                name=bytes(data[name_at : name_at + name_bytes]),
                kind=bytes([type_]) + bytes(data[shape_at : shape_at + shape_bytes]),
                offset=first,
                length=length,
                lane=_fitting(_TFLITE_LANES.get(type_, 1), length),
            )


def _u32(data: memoryview, position: int) -> int:
    return int(struct.unpack_from("<I", data, position)[0])


def _field(data: memoryview, table: int, index: int) -> int:
    """Return where a table's field lies, or 0 if it is left out."""
    vtable = table - int(struct.unpack_from("<i", data, table)[0])
    if vtable < 0:
        raise ValueError("no vtable there")
    place = 4 + 2 * index
    if place + 2 > struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset = int(struct.unpack_from("<H", data, vtable + place)[0])
    return table + offset if offset else 0


def _vector(data: memoryview, field: int) -> range:
    """Return the places of the 4-byte elements of a vector."""
    if not field:
        return range(0)
    start = field + _u32(data, field)
    first, count = start + 4, _u32(data, start)
    if first + 4 * count > len(data):
        raise ValueError("cut short")
    return range(first, first + 4 * count, 4)


def _tables(data: memoryview, field: int) -> Iterator[int]:
    for place in _vector(data, field):
        yield place + _u32(data, place)


def _bytes(data: memoryview, field: int, width: int) -> tuple[int, int]:
    """Return where the bytes of a vector of `width`-byte elements lie and how many they are."""
    if not field:
        return 0, 0
    start = field + _u32(data, field)
    first, size = start + 4, width * _u32(data, start)
    if first + size > len(data):
        raise ValueError("cut short")
    return first, size


def _fitting(lane: int, length: int) -> int:
    return lane if length % lane == 0 else 1
