"""Compressed bodies: which codings a request and its client name, and undoing and making them within a bound.

A compressed body says nothing of its size: a thousandth of it can come over the wire. So it is undone step by step and
ended at a limit; nothing is made from what the head promises. Source: RFC 9110, sections 8.4 and 12.5.3; `deflate`
there is the zlib format of RFC 1950, and the bare one that some clients send instead is read as well.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final, Literal

from edge_agent.errors import TensorError
from edge_agent.http.messages import Body, HttpError, too_large
from edge_contracts import limits

Coding = Literal["gzip", "deflate"]

CHOSEN_BYTES: Final = 1 * limits.KIB
"""An answer from this size on is compressed for a client that names one coding: it has chosen it."""

USUAL_BYTES: Final = 64 * limits.KIB
"""The same for a client that names several: libraries do so unasked, and on this device the CPU is what is short."""

_CODINGS: Final[dict[bytes, Coding]] = {b"gzip": "gzip", b"x-gzip": "gzip", b"deflate": "deflate"}
MAX_MEMBERS: Final = 16
"""Parts that gzip data may have one behind the other (RFC 1952, section 2.2): each costs a copy of what follows it."""

_MAGIC: Final = b"\x1f\x8b"
_GZIP_BITS, _ZLIB_BITS, _BARE_BITS = 31, 15, -15
_LEVEL: Final = 1  # the others cost several times the CPU for a tenth of the bytes


def coding_of(headers: Mapping[bytes, bytes]) -> Coding | None:
    """Return how a request's body is compressed, None for a plain one. Raises HttpError 415 for another coding."""
    named = headers.get(b"content-encoding")
    if not named or named.lower() == b"identity":
        return None
    coding = _CODINGS.get(named.lower())
    if coding is None:
        text = f"content-encoding: {named[:40].decode('ascii', 'replace')} is not supported; use gzip or deflate"
        raise HttpError(415, text, (b"accept-encoding", b"gzip, deflate"))
    return coding


def accepted(headers: Mapping[bytes, bytes]) -> tuple[Coding, int] | None:
    """Return the coding a client accepts for its answer and from which size on in bytes it is worth it; None if it
    accepts none."""
    named = [_preference(item) for item in headers.get(b"accept-encoding", b"").lower().split(b",")]
    usable = [(coding, weight) for coding, weight in named if weight > 0 and coding is not None]
    if not usable:
        return None
    best = max(usable, key=lambda one: one[1])[0]
    return best, CHOSEN_BYTES if len(named) == 1 else USUAL_BYTES


def decompress(body: Body, coding: Coding, limit: int) -> bytes:
    """Return what a compressed body holds. Raises HttpError 413 for more than `limit` bytes, TensorError for what is
    damaged, ends early or is followed by more."""
    try:
        found, left = _members(body, limit) if coding == "gzip" else _decompress(body, _ZLIB_BITS, limit)
    except zlib.error as error:
        if coding == "gzip":
            raise TensorError(f"not {coding}: {error}", subject="content-encoding") from error
        found, left = _bare(body, limit)
    if left:
        raise TensorError(f"bytes behind the end of the {coding} data", subject="content-encoding")
    return found


def compress(body: bytes, coding: Coding) -> bytes:
    """Return a body compressed."""
    return zlib.compress(body, _LEVEL, wbits=_GZIP_BITS if coding == "gzip" else _ZLIB_BITS)


def _bare(body: Body, limit: int) -> tuple[bytes, bytes]:
    try:
        return _decompress(body, _BARE_BITS, limit)
    except zlib.error as error:
        raise TensorError(f"not deflate: {error}", subject="content-encoding") from error


def _members(body: Body, limit: int) -> tuple[bytes, bytes]:
    """Return what the members of gzip data hold, and what follows them. Raises zlib.error."""
    found, left = _decompress(body, _GZIP_BITS, limit)
    members = [found]
    while left.startswith(_MAGIC) and len(members) < MAX_MEMBERS:
        found, left = _decompress(left, _GZIP_BITS, limit, sum(map(len, members)))
        members.append(found)
    return b"".join(members), left


def _decompress(body: Body, bits: int, limit: int, before: int = 0) -> tuple[bytes, bytes]:
    """Return the data and what follows it; `before` of the limit's bytes are there. Raises zlib.error."""
    stream = zlib.decompressobj(bits)
    found = stream.decompress(body, limit - before + 1)
    if before + len(found) > limit:
        raise too_large(before + len(found))
    if not stream.eof:
        raise TensorError("the compressed data ends early", subject="content-encoding")
    return found, stream.unused_data


def _preference(item: bytes) -> tuple[Coding | None, float]:
    """Return the coding and the weight of one item of Accept-Encoding; a weight that is none is zero."""
    name, _, parameter = item.partition(b";")
    key, _, value = parameter.strip().partition(b"=")
    try:
        weight = float(value) if key.strip() == b"q" else 1.0
    except ValueError:
        weight = 0.0
    return _CODINGS.get(name.strip()), weight
