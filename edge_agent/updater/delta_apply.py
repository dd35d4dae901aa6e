"""Applying one delta: reads the base and the delta in pieces and yields the new file's bytes in order.

Memory is bounded by one block of lanes and the decompressors' windows, whatever the delta says. Nothing it yields is
trusted: who stores the bytes checks them against the manifest (`edge_agent.updater.download`). The format is in
`edge_contracts.delta`.
"""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Protocol

from edge_agent.errors import DeltaError
from edge_contracts.delta import (
    BLOCK_LANES,
    HEADER,
    WINDOW_LOG,
    Copy,
    Difference,
    Operation,
    parse_header,
    parse_operations,
)
from edge_contracts.errors import ContractError
from edge_contracts.limits import MAX_DELTA_CONTROL_BYTES

PIECE_BYTES = 256 * 1024
"""Most bytes copied or inflated at a time."""


def known_codecs() -> frozenset[str]:
    """Return the codecs this device can read; zstandard has no wheel for 32-bit ARM."""
    return frozenset(("zlib", "zstd") if importlib.util.find_spec("zstandard") else ("zlib",))


def apply_delta(base: Path, delta: Path, codec: str, size: int) -> Iterator[bytes]:
    """Yield the `size` bytes that `delta`, compressed by `codec`, makes from `base`, in pieces of at most 1 MiB.

    Raises DeltaError as soon as the delta cannot be right, or the base cannot be read.
    """
    with ExitStack() as stack:
        try:
            file, old = stack.enter_context(delta.open("rb")), stack.enter_context(base.open("rb"))
            places = parse_header(file.read(HEADER.size), delta.stat().st_size)
            control, *sections = (_Section(stack.enter_context(delta.open("rb")), place, codec) for place in places)
            table = control.rest(MAX_DELTA_CONTROL_BYTES)
            operations = parse_operations(table, base_size=base.stat().st_size, target_size=size)
        except (ContractError, OSError) as error:
            raise DeltaError(str(error)) from error
        masks, values, literals = sections
        for operation in operations:
            if isinstance(operation, Copy):
                yield from _copied(old, operation)
            elif isinstance(operation, Difference):
                yield from _added(old, operation, masks, values)
            else:
                yield from _inserted(literals, operation)


def _copied(old: BinaryIO, operation: Copy) -> Iterator[bytes]:
    old.seek(operation.offset)
    for start in range(0, operation.length, PIECE_BYTES):
        yield _exactly(old, min(PIECE_BYTES, operation.length - start))


def _inserted(literals: _Section, operation: Operation) -> Iterator[bytes]:
    for start in range(0, operation.length, PIECE_BYTES):
        yield literals.take(min(PIECE_BYTES, operation.length - start))


def _added(old: BinaryIO, operation: Difference, masks: _Section, values: _Section) -> Iterator[bytes]:
    import numpy as np  # only a device that applies a delta pays for it

    lane = operation.lane
    unsigned = np.dtype(f"<u{lane}")
    old.seek(operation.offset)
    for start in range(0, operation.length, BLOCK_LANES * lane):
        known = _exactly(old, min(BLOCK_LANES * lane, operation.length - start))
        lanes = len(known) // lane
        planes = np.zeros((lanes, lane), np.uint8)
        for index in range(lane):
            mask = np.frombuffer(masks.take(-(-lanes // 8)), np.uint8)
            changed = np.unpackbits(mask, count=lanes, bitorder="little").view(np.bool_)
            count = int(np.count_nonzero(changed))
            planes[changed, index] = np.frombuffer(values.take(count), np.uint8)
        zigzag = planes.view(unsigned).reshape(-1)
        one = unsigned.type(1)
        residual = (zigzag >> one) ^ (~(zigzag & one) + one)
        yield (np.frombuffer(known, unsigned) + residual).tobytes()


def _exactly(file: BinaryIO, count: int) -> bytes:
    try:
        data = file.read(count)
    except OSError as error:
        raise DeltaError(f"the base cannot be read: {error.strerror}") from error
    if len(data) != count:
        raise DeltaError("the base is shorter than it was")
    return data


class _Inflater(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Section:
    """One compressed section of a delta, inflated as far as it is asked for."""

    def __init__(self, file: BinaryIO, place: range, codec: str) -> None:
        self._file = file
        self._left = len(place)
        file.seek(place.start)
        self._inflater: _Inflater = _zstd(self) if codec == "zstd" else _Zlib(self)

    def read(self, size: int) -> bytes:
        """Return at most `size` compressed bytes; this is what inflaters read from."""
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data

    def take(self, count: int) -> bytes:
        """Return exactly `count` inflated bytes. Raises DeltaError."""
        data = self._some(count)
        while len(data) < count:
            more = self._some(count - len(data))
            if not more:
                raise DeltaError("a section ends too early")
            data += more
        return data

    def rest(self, limit: int) -> bytes:
        """Return all inflated bytes. Raises DeltaError if they are more than `limit`."""
        data = b""
        while len(data) <= limit:
            more = self._some(limit + 1 - len(data))
            if not more:
                return data
            data += more
        raise DeltaError(f"over {limit} bytes of operations")

    def _some(self, count: int) -> bytes:
        if not count:
            return b""
        try:
            return self._inflater.read(count)
        except (zlib.error, _zstd_error()) as error:
            raise DeltaError(f"cannot be inflated: {error}") from error


class _Zlib:
    """Inflates a zlib stream."""

    def __init__(self, source: _Inflater) -> None:
        self._source = source
        self._stream = zlib.decompressobj()

    def read(self, size: int, /) -> bytes:
        while not self._stream.eof:
            data = self._stream.unconsumed_tail or self._source.read(PIECE_BYTES)
            inflated = self._stream.decompress(data, size)
            if inflated or not data:
                return inflated
        return b""


def _zstd(source: _Inflater) -> _Inflater:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG)
    reader: _Inflater = decompressor.stream_reader(source, read_size=PIECE_BYTES)  # type: ignore[arg-type]
    return reader


def _zstd_error() -> type[Exception]:
    if "zstd" not in known_codecs():
        return zlib.error
    import zstandard

    return zstandard.ZstdError
