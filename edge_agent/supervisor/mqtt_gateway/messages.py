"""What travels on data topics: requests of the Open Inference Protocol v2, as JSON or as MessagePack.

JSON goes to the slot as it is. MessagePack has the same fields with each tensor's `data` as one binary string, little
endian; it becomes the protocol's binary extension, and so does its answer back. No tensor is parsed here: that is the
slot's own business (`edge_agent.http.oip_codec`), which also owns every check of shapes and numbers.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from edge_contracts.codec import Record
from edge_contracts.errors import ContractError
from edge_contracts.limits import MAX_RANK, MAX_TENSORS

JSON_OPENS = b" \t\r\n{"
"""First bytes of a JSON object. None of them begins a map in MessagePack, so the two are told apart by one byte."""


class PackedTensor(Record, frozen=True, kw_only=True):
    """One tensor with its elements as bytes, row by row."""

    name: str
    datatype: str
    shape: Annotated[tuple[int, ...], Meta(max_length=MAX_RANK)]
    data: bytes


class PackedParameters(Record, frozen=True, kw_only=True):
    """Parameters of a request in MessagePack; `tag` says where its samples come from, the others which step of a
    stream it is."""

    tag: str | None = None
    sequence_id: str | int | None = None
    sequence_start: bool | None = None
    sequence_end: bool | None = None


class PackedRequest(Record, frozen=True, kw_only=True):
    """A request in MessagePack; `id` comes back with the answer."""

    inputs: Annotated[tuple[PackedTensor, ...], Meta(max_length=MAX_TENSORS)]
    id: str | None = None
    parameters: PackedParameters = PackedParameters()


class DataError(Record, frozen=True, kw_only=True):
    """What is published on `<output>/error`: a stable code in `reason`, and the words for people in `error`."""

    slot: str
    reason: str
    error: str
    id: str | None = None


class Body(Struct, frozen=True, kw_only=True):
    """A body of the Open Inference Protocol; `json_length` is the length of its JSON if tensors follow it."""

    data: bytes
    json_length: int | None = None


_packed = msgspec.msgpack.Decoder(PackedRequest)
_identified = msgspec.json.Decoder(dict[str, msgspec.Raw])


def request_body(payload: bytes) -> Body:
    """Return the request to ask the slot for a message. Raises ContractError for what is neither form."""
    if payload[:1] in _openings:
        return Body(data=payload)
    try:
        packed = _packed.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"neither a JSON object nor a MessagePack request: {error}", subject="payload") from error
    inputs = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
            "parameters": {"binary_data_size": len(tensor.data)},
        }
        for tensor in packed.inputs
    ]
    parameters: dict[str, Any] = {"binary_data_output": True}
    given = msgspec.structs.asdict(packed.parameters)
    parameters |= {name: value for name, value in given.items() if value is not None}
    head: dict[str, Any] = {"inputs": inputs, "parameters": parameters}
    if packed.id is not None:
        head["id"] = packed.id
    json = msgspec.json.encode(head)
    return Body(data=b"".join([json, *(tensor.data for tensor in packed.inputs)]), json_length=len(json))


def answer_payload(answer: Body) -> bytes:
    """Return the message for an answer of the slot: JSON as it is, binary tensors as MessagePack."""
    if answer.json_length is None:
        return answer.data
    return msgspec.msgpack.encode(unpacked(answer))


def unpacked(answer: Body) -> dict[str, Any]:
    """Return the fields of an answer; outputs that came in binary have their bytes as `data`."""
    length = len(answer.data) if answer.json_length is None else answer.json_length
    fields: dict[str, Any] = msgspec.json.decode(answer.data[:length])
    at = length
    for output in fields.get("outputs", []):
        size = output.get("parameters", {}).pop("binary_data_size", None)
        if size is not None:
            output["data"] = answer.data[at : at + size]
            output.pop("parameters")
            at += size
    return fields


def request_id(payload: bytes) -> str | None:
    """Return the id of a request that may be anything, for the error that answers it."""
    try:
        if payload[:1] not in _openings:
            return _packed.decode(payload).id
        return msgspec.json.decode(_identified.decode(payload).get("id", b"null"), type=str | None)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


_openings = frozenset(bytes([byte]) for byte in JSON_OPENS)
