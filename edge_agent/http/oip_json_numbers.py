"""Numbers in JSON to arrays: the `data` of an Open Inference Protocol tensor, flat or nested.

What surrounds them, and binary tensors, are in `adapters.oip`.
"""

from __future__ import annotations

import contextlib
import math
import struct
from typing import Any, Final

import msgspec
import numpy as np

from edge_agent.errors import TensorError
from edge_agent.ports import Array
from edge_contracts.codec import contract_error

_LISTS: Final[dict[str, Any]] = {"b": list[bool], "i": list[int], "u": list[int], "f": list[float]}
DECODERS = {kind: msgspec.json.Decoder(numbers) for kind, numbers in _LISTS.items()}
_anything = msgspec.json.Decoder()


def parse_numbers(data: bytes, shape: list[int], dtype: np.dtype[Any], where: str) -> Array:
    """Return the tensor of a flat or nested JSON list. Raises TensorError naming `where`."""
    if not data:
        raise TensorError("missing", subject=where)
    if dtype == np.float16:
        raise TensorError("FP16 has no JSON form; send it as binary data", subject=where)
    try:
        array = _array(DECODERS[dtype.kind].decode(data), dtype)
    except msgspec.ValidationError:
        array = _nested(data, shape, dtype, where)
    except (msgspec.MsgspecError, UnicodeDecodeError, OverflowError) as error:
        raise TensorError(f"not {dtype}: {error}", subject=where) from error
    return _shaped(array, shape, where)


def from_floats(values: list[float], shape: list[int], dtype: np.dtype[Any], where: str) -> Array:
    """Return the tensor of a flat list that is decoded already. Raises TensorError naming `where`."""
    return _shaped(_array(values, dtype), shape, where)


def _shaped(array: Array, shape: list[int], where: str) -> Array:
    if array.size != math.prod(shape):
        raise TensorError(f"{array.size} elements, the shape has {math.prod(shape)}", subject=where)
    return array.reshape(shape)


def _nested(data: bytes, shape: list[int], dtype: np.dtype[Any], where: str) -> Array:
    try:
        values = _flatten(_anything.decode(data), shape)
        return _array(msgspec.convert(values, _LISTS[dtype.kind]), dtype)
    except (msgspec.MsgspecError, UnicodeDecodeError, OverflowError, RecursionError) as error:
        raise TensorError(f"not {dtype}: {contract_error(error, 'element')}", subject=where) from error


def _flatten(values: Any, shape: list[int]) -> list[Any]:
    """Flatten lists nested exactly as `shape` says. Raises msgspec.ValidationError."""
    level = [values]
    for size in shape:
        if any(not isinstance(part, list) or len(part) != size for part in level):
            raise msgspec.ValidationError(f"lists are not nested like the shape {shape}")
        level = [item for part in level for item in part]
    return level


def _array(values: list[Any], dtype: np.dtype[Any]) -> Array:
    """Return the array of numbers that all fit `dtype`. Raises OverflowError."""
    if dtype == np.float32:
        with contextlib.suppress(OverflowError):  # in a third of NumPy's own time
            return np.frombuffer(struct.pack(f"{len(values)}f", *values), np.float32)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and infinity is the guards' business
            return np.asarray(values, np.float64).astype(dtype)
    if dtype.kind in "iu" and values:
        bounds = np.iinfo(dtype)
        if min(values) < bounds.min or max(values) > bounds.max:
            raise OverflowError(f"a number is outside {bounds.min} to {bounds.max}")
    return np.asarray(values, dtype)
