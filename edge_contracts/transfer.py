"""The envelope between a device and a depot: one request, one response, in MessagePack, over any MQTT version.

The reply topic and the request's id travel in the payload, so MQTT 3.1.1 needs nothing more. What is asked for is
untrusted on the depot's side and what is answered is untrusted on the device's: trust is TUF's and the chunk
hashes', never the broker's. MQTT itself is in `edge_io.mqtt`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from edge_contracts import limits
from edge_contracts.codec import contract_error, decode
from edge_contracts.errors import ContractError

Kind = Literal["metadata", "target", "blob"]
Status = Literal["ok", "not_found", "retry_after", "refused"]


class Request(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Ask for `length` bytes at `offset` of one object.

    `kind` metadata: `name` is a TUF metadata file name ("5.snapshot.json", "timestamp.json"). target: a TUF target
    path with its hash prefix. blob: the SHA-256 of a whole file; pieces are asked for at chunk borders.
    """

    id: Annotated[int, Meta(ge=0)]
    reply: Annotated[str, Meta(max_length=256)]
    kind: Kind
    name: Annotated[str, Meta(min_length=1, max_length=320)]
    offset: Annotated[int, Meta(ge=0)] = 0
    length: Annotated[int, Meta(ge=1, le=limits.MAX_CHUNK_BYTES)] = limits.CHUNK_BYTES


class Response(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The bytes asked for, or why not. `total` is the size of the whole object; `retry_after` is in seconds."""

    id: Annotated[int, Meta(ge=0)]
    status: Status
    offset: Annotated[int, Meta(ge=0)] = 0
    total: Annotated[int, Meta(ge=0)] = 0
    retry_after: Annotated[float, Meta(ge=0.0, le=86400.0)] = 0.0
    body: bytes = b""


class Hint(msgspec.Struct, frozen=True, kw_only=True):
    """Retained, unsigned, JSON: the newest timestamp version a depot has. Worth a look, never worth belief."""

    timestamp_version: Annotated[int, Meta(ge=0)]


def pack(message: Request | Response) -> bytes:
    """Return the MessagePack bytes of an envelope. Raises ContractError if it is over the packet limit."""
    data = msgspec.msgpack.encode(message)
    if len(data) > limits.MAX_ENVELOPE_BYTES:
        raise ContractError(f"{len(data)} bytes, over {limits.MAX_ENVELOPE_BYTES}", subject="envelope")
    return data


def parse_hint(data: bytes) -> Hint:
    """Parse a hint. Raises ContractError naming the field."""
    return decode(data, Hint, limit=limits.MAX_MESSAGE_BYTES, what="hint")


def unpack_request(data: bytes) -> Request:
    """Parse a request. Raises ContractError naming the field."""
    return _unpack(data, _REQUEST, "request")


def unpack_response(data: bytes) -> Response:
    """Parse a response. Raises ContractError naming the field."""
    return _unpack(data, _RESPONSE, "response")


_Envelope = TypeVar("_Envelope", Request, Response)
_REQUEST = msgspec.msgpack.Decoder(Request)
_RESPONSE = msgspec.msgpack.Decoder(Response)


def _unpack(data: bytes, decoder: msgspec.msgpack.Decoder[_Envelope], what: str) -> _Envelope:
    if len(data) > limits.MAX_ENVELOPE_BYTES:
        raise ContractError(f"{len(data)} bytes, over {limits.MAX_ENVELOPE_BYTES}", subject=what)
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise contract_error(error, what) from error
