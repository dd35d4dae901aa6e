"""The wire format of protobuf messages, walked without a schema or a copy. What the fields mean is the caller's.

Source: protobuf's encoding specification (base 128 varints, wire types 0, 1, 2 and 5; groups are not supported).
"""

from __future__ import annotations

from collections.abc import Iterator


def fields(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield field number, wire type, and where the content of each field of the message in `data[start:end]` starts
    and ends. Raises ValueError or IndexError where the bytes are no message."""
    position = start
    while position < end:
        key, position = varint(data, position)
        wire, first = key & 7, position
        if wire == 2:
            size, first = varint(data, position)
            last = first + size
        elif wire == 0:
            _, last = varint(data, position)
        elif wire in (1, 5):
            last = position + (8 if wire == 1 else 4)
        else:
            raise ValueError(f"wire type {wire}")
        if last > end:
            raise ValueError("cut short")
        yield key >> 3, wire, first, last
        position = last


def varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return the number at `position` and where it ends. Raises ValueError, IndexError."""
    value = data[position]
    if value < 0x80:  # nearly always
        return value, position + 1
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("number too long")
