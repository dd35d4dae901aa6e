"""Writing one delta: residuals of what changed, the bytes that are new, and the operations that put them together.

The format is in `edge_contracts.delta`; which bytes come from where is decided in
`edge_fleet.releases.deltas.matching`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from edge_contracts.delta import (
    BLOCK_LANES,
    WINDOW_LOG,
    Codec,
    Difference,
    Insert,
    pack_header,
    pack_operations,
)
from edge_fleet.errors import FleetError
from edge_fleet.releases.deltas.matching import plan
from edge_fleet.releases.deltas.residuals import Bytes, residual_planes

ZSTD_LEVEL = 1
"""Residuals have no long matches to look for: level 9 makes 1 to 3 % less of them and takes twice as long."""


Compress = Callable[[bytes], bytes]


def encode_delta(base: bytes | memoryview, target: bytes | memoryview, codec: Codec = "zstd") -> bytes:
    """Return the delta that makes `target` from `base`. Raises FleetError if the codec is not installed here."""
    compress = _compressor(codec)
    old, new = np.frombuffer(base, np.uint8), np.frombuffer(target, np.uint8)
    operations = plan(old, new)
    masks: list[bytes] = []
    values: list[bytes] = []
    literals: list[bytes] = []
    position = 0
    for operation in operations:
        fresh = new[position : position + operation.length]
        if isinstance(operation, Difference):
            known = old[operation.offset : operation.offset + operation.length]
            _write_difference(known, fresh, operation.lane, masks, values)
        elif isinstance(operation, Insert):
            literals.append(fresh.tobytes())
        position += operation.length
    written = [[pack_operations(operations)], masks, values, literals]
    sections = [compress(b"".join(pieces)) for pieces in written]
    return b"".join((pack_header([len(section) for section in sections]), *sections))


def _write_difference(known: Bytes, fresh: Bytes, lane: int, masks: list[bytes], values: list[bytes]) -> None:
    for start in range(0, len(fresh), BLOCK_LANES * lane):
        block = slice(start, start + BLOCK_LANES * lane)
        for plane in residual_planes(known[block], fresh[block], lane):
            changed = plane != 0
            masks.append(np.packbits(changed, bitorder="little").tobytes())
            values.append(plane[changed].tobytes())


def _compressor(codec: Codec) -> Compress:
    if codec == "zlib":
        return zlib.compress
    try:
        import zstandard
    except ModuleNotFoundError as error:
        hint = "pip install zstandard, or write deltas with --delta-codec zlib"
        raise FleetError("zstandard is not installed", subject="delta codec", hint=hint) from error
    parameters = zstandard.ZstdCompressionParameters.from_level(ZSTD_LEVEL, window_log=WINDOW_LOG)
    return zstandard.ZstdCompressor(compression_params=parameters).compress
