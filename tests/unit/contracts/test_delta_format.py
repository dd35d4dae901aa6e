"""The bytes of a delta: what devices in the field read, byte for byte, and what they refuse."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest

from edge_contracts import limits
from edge_contracts.delta import (
    HEADER,
    Copy,
    Difference,
    Insert,
    pack_header,
    pack_operations,
    parse_header,
    parse_operations,
)
from edge_contracts.errors import ContractError

OPERATIONS = (Copy(length=300, offset=0), Difference(length=8, offset=300, lane=4), Insert(length=5))
GOLDEN = bytes.fromhex("93 93 00 cd012c 00 94 01 08 cd012c 04 92 02 05")


def test_operations_are_byte_for_byte_the_golden_ones() -> None:
    assert pack_operations(OPERATIONS) == GOLDEN
    assert parse_operations(GOLDEN, base_size=308, target_size=313) == OPERATIONS


def test_header_is_byte_for_byte_the_golden_one() -> None:
    golden = b"EWDELTA1" + struct.pack("<QQQQ", 1, 2, 3, 4)
    assert pack_header([1, 2, 3, 4]) == golden
    assert parse_header(golden, 50) == (range(40, 41), range(41, 43), range(43, 46), range(46, 50))


@pytest.mark.parametrize(
    ("header", "size"),
    [
        (b"", 0),
        (b"EWDELTA2" + bytes(32), 40),
        (pack_header([1, 2, 3, 4])[:-1], 50),
        (pack_header([1, 2, 3, 4]), 49),
        (pack_header([1, 2, 3, 4]), 51),
        (pack_header([2**64 - 1, 2**64 - 1, 2, 0]), HEADER.size),
    ],
)
def test_header_that_is_none_or_describes_other_bytes_is_refused(header: bytes, size: int) -> None:
    with pytest.raises(ContractError, match=r"delta\.header"):
        parse_header(header, size)


@pytest.mark.parametrize(
    "operations",
    [
        [[0, 10, 91]],
        [[1, 8, 96, 4]],
        [[0, 0, 0]],
        [[0, -1, 0]],
        [[0, 10, -1]],
        [[0, 10, 2**64 - 1]],
        [[0, 2**63, 0]],
        [[1, 10, 0, 4]],
        [[1, 9, 0, 3]],
        [[3, 10]],
        [[2, 9]],
        [[2, 11]],
        {"0": 1},
        [[2, 1]] * (limits.MAX_DELTA_OPERATIONS + 1),
    ],
)
def test_operations_out_of_range_are_refused(operations: Any) -> None:
    with pytest.raises(ContractError, match=r"delta\.control"):
        parse_operations(msgspec.msgpack.encode(operations), base_size=100, target_size=10)


@pytest.mark.parametrize("control", [b"", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\x91" * 5000])
def test_control_that_is_no_messagepack_is_refused(control: bytes) -> None:
    with pytest.raises(ContractError, match=r"delta\.control"):
        parse_operations(control, base_size=100, target_size=10)
