"""Deltas between two releases of a family: the signed document that lists them, and the format of one delta.

A delta says how a file of a release is made from a file of an older one, in operations on byte ranges; its reader knows
nothing of model formats. It is never trusted: what it makes is checked against the manifest, like bytes that were
fetched. Making deltas is in `edge_fleet.releases.deltas.encoder`, applying them in `edge_agent.updater.delta_apply`.

    header     MAGIC and the sizes in bytes of the four sections, u64 little-endian
    control    MessagePack list of operations, in the order of the target's bytes
    masks      for each block of a Difference and each byte plane of it: one bit per lane, 1 where the byte is not 0
    values     for each of the same planes: the bytes that are not 0
    literals   bytes of the target that no base has

Each section is compressed by itself, because each has statistics of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_contracts import limits
from edge_contracts.codec import Record, contract_error, decode
from edge_contracts.errors import ContractError
from edge_contracts.names import Name, Sha256, Version

DELTAS_SCHEMA = 1
MAGIC = b"EWDELTA1"
HEADER = struct.Struct("<8s4Q")

BLOCK_LANES = 1 << 17
"""Lanes of a Difference handled at a time, by both sides: a plane of one block fills one block of zstd."""

WINDOW_LOG = 20
"""Base-2 logarithm of the most a decompressor must remember, in bytes: four sections are read at once."""

Codec = Literal["zstd", "zlib"]
"""What a fleet may compress deltas with; zstandard has no wheel for 32-bit Arm."""

Lane = Literal[1, 2, 4, 8]
Count = Annotated[int, Meta(ge=0)]
Length = Annotated[int, Meta(ge=1, le=limits.MAX_BUNDLE_BYTES)]


class DeltaEntry(Record, frozen=True, kw_only=True):
    """One delta: a blob of `size` bytes, pinned like a file of a bundle, that makes the file `target` from `base`.

    `codec` compresses its sections; a device that does not know it passes the delta over.
    """

    target: Sha256
    base: Sha256
    codec: Name
    size: Length
    sha256: Sha256
    chunks: Annotated[tuple[Sha256, ...], Meta(min_length=1)]


class Deltas(Record, frozen=True, kw_only=True):
    """The deltas towards one release. It names the manifest; the manifest knows nothing of it."""

    schema: int = DELTAS_SCHEMA
    model: Name
    version: Version
    manifest_sha256: Sha256
    chunk_size: Annotated[int, Meta(ge=1024, le=limits.MAX_CHUNK_BYTES)] = limits.CHUNK_BYTES
    deltas: Annotated[tuple[DeltaEntry, ...], Meta(max_length=limits.MAX_DELTAS)] = ()


class Copy(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The next `length` bytes are those of the base at `offset`."""

    length: Length
    offset: Count


class Difference(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The next `length` bytes are lanes of `lane` bytes, little-endian, each the base's at `offset` plus a residual.

    Modulo 2 ** (8 * lane), whatever the lanes mean; for floats it is the distance of the bit patterns. Residuals are
    zigzag coded (0, -1, 1, -2, ... as 0, 1, 2, 3, ...), so that small ones leave the upper byte planes 0.
    """

    length: Length
    offset: Count
    lane: Lane


class Insert(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The next `length` bytes are in the literals."""

    length: Length


Operation = Copy | Difference | Insert


def deltas_target(model: str, version: str) -> str:
    """Return the TUF target path of the deltas towards a release."""
    return f"models/{model}/{version}/deltas.json"


def parse_deltas(data: bytes) -> Deltas:
    """Parse the list of deltas towards a release. Raises ContractError naming the field."""
    found = decode(data, Deltas, limit=limits.MAX_MANIFEST_BYTES, what="deltas")
    if found.schema != DELTAS_SCHEMA:
        raise ContractError(f"schema {found.schema} is not known here", subject="deltas.schema")
    for index, entry in enumerate(found.deltas):
        expected = -(-entry.size // found.chunk_size)
        if len(entry.chunks) != expected:
            what = f"deltas.deltas[{index}]"
            raise ContractError(f"{len(entry.chunks)} chunks for {entry.size} bytes, not {expected}", subject=what)
    return found


def pack_header(sections: Sequence[int]) -> bytes:
    """Return the header of a delta whose four sections have these sizes."""
    return HEADER.pack(MAGIC, *sections)


def parse_header(data: bytes, size: int) -> tuple[range, ...]:
    """Return where each of the four sections lies in a delta of `size` bytes. Raises ContractError."""
    if len(data) != HEADER.size or not data.startswith(MAGIC):
        raise ContractError("not a delta of a known format", subject="delta.header")
    position, found = HEADER.size, []
    for length in HEADER.unpack(data)[1:]:
        found.append(range(position, position + length))
        position += length
    if position != size:
        raise ContractError(f"describes {position} bytes, the delta has {size}", subject="delta.header")
    return tuple(found)


def pack_operations(operations: Sequence[Operation]) -> bytes:
    """Return the control section, not yet compressed."""
    return msgspec.msgpack.encode(operations)


def parse_operations(control: bytes, *, base_size: int, target_size: int) -> tuple[Operation, ...]:
    """Parse a control section. Raises ContractError if an operation leaves the base, which has `base_size` bytes, or
    all together do not make `target_size` bytes."""
    try:
        found = _OPERATIONS.decode(control)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise contract_error(error, "delta.control") from error
    for index, operation in enumerate(found):
        what = f"delta.control[{index}]"
        if not isinstance(operation, Insert) and operation.offset + operation.length > base_size:
            raise ContractError(f"reads beyond the base's {base_size} bytes", subject=what)
        if isinstance(operation, Difference) and operation.length % operation.lane:
            raise ContractError(f"{operation.length} bytes are not lanes of {operation.lane}", subject=what)
    made = sum(operation.length for operation in found)
    if made != target_size:
        raise ContractError(f"makes {made} bytes of {target_size}", subject="delta.control")
    return found


_OPERATIONS: msgspec.msgpack.Decoder[tuple[Operation, ...]] = msgspec.msgpack.Decoder(
    Annotated[tuple[Operation, ...], Meta(max_length=limits.MAX_DELTA_OPERATIONS)]
)
