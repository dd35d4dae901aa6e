"""The tensors of a model file as a delta needs them: names, shapes, types, byte ranges and the width of their numbers.

How ONNX and TFLite files are walked is in `edge_io`. A file that is neither has no tensors, and neither has one that is
damaged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from edge_io.onnx_tensors import tensor_messages
from edge_io.protobuf import fields, varint
from edge_io.tflite_tensors import is_tflite, tensors

_SMALLEST_ATTRIBUTE = 64
"""Bytes of a node's attribute below which no tensor in it is worth a difference; most attributes are one number."""

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
        found = list(_tflite(data) if is_tflite(data) else _onnx(data))
    except (IndexError, ValueError, struct.error):
        return []
    apart: list[ModelTensor] = []
    for tensor in sorted(found, key=lambda tensor: tensor.offset):
        if not apart or tensor.offset >= apart[-1].offset + apart[-1].length:
            apart.append(tensor)
    return apart


def _onnx(data: memoryview) -> Iterator[ModelTensor]:
    for first, last in tensor_messages(data, smallest_attribute=_SMALLEST_ATTRIBUTE):
        yield from _onnx_tensor(data, first, last)


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
    for tensor in tensors(data):
        yield ModelTensor(
            name=tensor.name,
            kind=bytes([tensor.type]) + tensor.shape,
            offset=tensor.offset,
            length=tensor.length,
            lane=_fitting(_TFLITE_LANES.get(tensor.type, 1), tensor.length),
        )


def _fitting(lane: int, length: int) -> int:
    return lane if length % lane == 0 else 1
