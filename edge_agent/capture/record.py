"""A served request as bytes: what was asked and what was answered, for a shadow that answers it too and for captures.

Parsed under limits: a capture comes from a device that may be in anybody's hands. Who takes requests aside is in
`edge_agent.worker.request_tap`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from edge_agent.answer import Answer
from edge_agent.ports import Array, Tensors
from edge_contracts import limits
from edge_contracts.codec import contract_error
from edge_contracts.errors import ContractError
from edge_contracts.manifest import DType
from edge_contracts.names import Text


class CapturedTensor(msgspec.Struct, frozen=True, array_like=True):
    """One array; `data` are its elements in C order, little-endian."""

    dtype: DType
    shape: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(max_length=limits.MAX_RANK)]
    data: memoryview


_Tensors = Annotated[dict[Text, CapturedTensor], Meta(max_length=limits.MAX_TENSORS)]


class CapturedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request and its answer. `time` in seconds since the epoch; `version` and `model_sha256` say which model
    answered, None if none did. `outputs` is empty when it abstained."""

    time: float
    inputs: _Tensors
    outputs: _Tensors = {}
    served_by: Text = ""
    version: Text | None = None
    model_sha256: Text | None = None
    abstained: bool = False
    warnings: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()
    timing_us: Annotated[int, Meta(ge=0)] = 0


_decoder = msgspec.msgpack.Decoder(CapturedRequest)


def captured_request(tensors: Tensors, answer: Answer, time: float) -> CapturedRequest:
    """Return a request and its answer as a record. It may look at the arrays' own memory, which engines and connections
    use again: encode it at once."""
    return CapturedRequest(
        time=time,
        inputs=_packed(tensors),
        outputs=_packed(answer.outputs),
        served_by=answer.served_by,
        version=answer.version,
        model_sha256=answer.model_sha256,
        abstained=answer.abstained,
        warnings=tuple(text[:2000] for text in answer.warnings[:64]),
        timing_us=answer.timing_us,
    )


def size_of(tensors: Tensors, answer: Answer) -> int:
    """Return the bytes of all arrays, of which a record is only a little more."""
    return sum(array.nbytes for group in (tensors, answer.outputs) for array in group.values())


def encode_captured(record: CapturedRequest) -> bytes:
    """Return the record in MessagePack."""
    return msgspec.msgpack.encode(record)


def decode_captured(data: bytes) -> CapturedRequest:
    """Parse a record. Raises ContractError naming the field."""
    if len(data) > limits.MAX_SERVED_BYTES:
        raise ContractError(f"{len(data)} bytes, over {limits.MAX_SERVED_BYTES}", subject="served request")
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise contract_error(error, "served request") from error


def arrays(tensors: Mapping[str, CapturedTensor]) -> dict[str, Array]:
    """Return tensors as arrays, which must not be written to. Raises ContractError naming one whose bytes are not those
    of its shape."""
    found: dict[str, Array] = {}
    for name, tensor in tensors.items():
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
        if math.prod(tensor.shape) * dtype.itemsize != len(tensor.data):
            text = f"{len(tensor.data)} bytes for {tensor.dtype} {list(tensor.shape)}"
            raise ContractError(text, subject=f"served request: {name[:80]}")
        array = np.frombuffer(tensor.data, dtype).reshape(tensor.shape)
        found[name] = array.astype(dtype.newbyteorder("="), copy=False)
    return found


def _packed(tensors: Tensors) -> dict[str, CapturedTensor]:
    """Names of classes are left out: they follow from their numbers."""
    return {name: _pack(array) for name, array in tensors.items() if array.dtype.kind != "U"}


def _pack(array: Any) -> CapturedTensor:
    flat: Any = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)
    return CapturedTensor(array.dtype.name, array.shape, memoryview(flat).cast("B"))
