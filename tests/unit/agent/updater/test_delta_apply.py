"""Applying deltas: the golden one as ever, and hostile ones within time and memory, to a typed error."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.makers.deltas import applied, deflated, forged, joined

from edge_agent.errors import DeltaError
from edge_agent.updater.delta_apply import apply_delta, known_codecs
from edge_contracts.delta import Copy, Difference, Insert, Operation
from edge_contracts.limits import MAX_DELTA_CONTROL_BYTES, MIB

GOLDEN_BASE = bytes(range(16))
GOLDEN_TARGET = b"\x00\x01\x02\x03" + b"\x05\x05\x05\x07" + b"\x08\x09\x0a\x0b" + b"\x0b\x0d\x0e\x0f" + b"new"
GOLDEN_OPERATIONS: list[Operation] = [
    Copy(length=4, offset=0),
    Difference(length=4, offset=4, lane=1),
    Difference(length=8, offset=8, lane=4),
    Insert(length=3),
]
GOLDEN = bytes.fromhex(
    "455744454c5441311d0000000000000010000000000000000e000000000000000e000000000000007801011200edff94"
    "93000400940104040194010808049202032332030a7801010500faff0502000000002600087801010300fcff02010100"
    "0c00057801010300fcff6e6577028e014b"
)
"""4 bytes copied; 4 of one byte, +1 0 -1 0; 2 of four bytes, 0 and -1; "new"."""


def test_golden_delta_makes_the_golden_file(tmp_path: Path) -> None:
    assert applied(tmp_path, GOLDEN_BASE, GOLDEN, len(GOLDEN_TARGET)) == GOLDEN_TARGET


def test_golden_delta_is_written_as_ever() -> None:
    masks, values = b"\x05\x02\x00\x00\x00", b"\x02\x01\x01"
    assert forged(GOLDEN_OPERATIONS, masks=masks, values=values, literals=b"new") == GOLDEN


@pytest.mark.parametrize("codec", sorted(known_codecs()))
def test_sections_that_end_too_early_are_refused(tmp_path: Path, codec: str) -> None:
    difference: list[Operation] = [Difference(length=16, offset=0, lane=4)]
    for sections in ({}, {"masks": b"\xff"}, {"masks": b"\xff" * 4}, {"masks": b"\xff" * 4, "values": b"v"}):
        with pytest.raises(DeltaError, match="too early"):
            applied(tmp_path, GOLDEN_BASE, forged(difference, codec=codec, **sections), 16, codec)
    with pytest.raises(DeltaError, match="too early"):
        applied(tmp_path, GOLDEN_BASE, forged([Insert(length=9)], literals=b"8 bytes.", codec=codec), 9, codec)


@pytest.mark.parametrize("codec", sorted(known_codecs()))
def test_truncated_and_damaged_deltas_make_nothing_else(tmp_path: Path, codec: str) -> None:
    delta = forged(GOLDEN_OPERATIONS, masks=b"\x05\x02\0\0\0", values=b"\x02\x01\x01", literals=b"new", codec=codec)
    for size in range(len(delta)):
        with pytest.raises(DeltaError):
            applied(tmp_path, GOLDEN_BASE, delta[:size], len(GOLDEN_TARGET), codec)
    for place in range(len(delta)):
        damaged = bytearray(delta)
        damaged[place] ^= 0x41
        try:
            made = applied(tmp_path, GOLDEN_BASE, bytes(damaged), len(GOLDEN_TARGET), codec)
        except DeltaError:
            continue
        assert len(made) == len(GOLDEN_TARGET)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_operations_over_any_sections_make_the_signed_size_or_a_typed_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    operation = st.one_of(
        st.builds(Copy, length=st.integers(1, 40), offset=st.integers(0, 40)),
        st.builds(Difference, length=st.integers(1, 40), offset=st.integers(0, 40), lane=st.sampled_from((1, 2, 4, 8))),
        st.builds(Insert, length=st.integers(1, 40)),
    )
    operations = data.draw(st.lists(operation, max_size=5))
    size = sum(operation.length for operation in operations)
    sections = {name: data.draw(st.binary(max_size=60)) for name in ("masks", "values", "literals")}
    try:
        made = applied(tmp_path_factory.getbasetemp(), GOLDEN_BASE, forged(operations, **sections), size)
    except DeltaError:
        return
    assert len(made) == size


def test_a_control_bomb_is_refused(tmp_path: Path) -> None:
    bomb = forged([], control=bytes(MAX_DELTA_CONTROL_BYTES + 1))
    with pytest.raises(DeltaError, match="bytes of operations"):
        applied(tmp_path, b"", bomb, 1)


@pytest.mark.skipif("zstd" not in known_codecs(), reason="zstandard is not installed")
def test_a_window_larger_than_ours_is_refused(tmp_path: Path) -> None:
    literals = np.random.default_rng(1).bytes(3 * MIB)
    control = deflated(b"\x91\x92\x02\xce\x00\x30\x00\x00", "zstd")
    delta = joined([control, deflated(b"", "zstd"), deflated(b"", "zstd"), deflated(literals, "zstd", window_log=24)])
    with pytest.raises(DeltaError, match="inflated"):
        applied(tmp_path, b"", delta, len(literals), "zstd")


def test_a_base_that_is_gone_or_shorter_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "delta").write_bytes(forged([Copy(length=16, offset=0)]))
    with pytest.raises(DeltaError):
        list(apply_delta(tmp_path / "gone", tmp_path / "delta", "zlib", 16))
    (tmp_path / "short").write_bytes(b"short")
    with pytest.raises(DeltaError):
        list(apply_delta(tmp_path / "short", tmp_path / "delta", "zlib", 16))


def test_zlib_that_never_ends_its_stream_is_refused(tmp_path: Path) -> None:
    stream = zlib.compressobj()
    endless = stream.compress(b"abc") + stream.flush(zlib.Z_SYNC_FLUSH)
    delta = joined([deflated(b"\x91\x92\x02\x09"), deflated(b""), deflated(b""), endless])
    with pytest.raises(DeltaError, match="too early"):
        applied(tmp_path, b"", delta, 9)
