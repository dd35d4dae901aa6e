"""Samples: reading and writing bounded .npz archives, the one mapping from a sample to what a model is fed, and
running a model over a set of samples one at a time, as a device does.

Judging the answers is in `quality`; serving single requests is in `runtime`.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from edge_agent.errors import EngineError
from edge_agent.ports import Array, Session, TensorInfo, Tensors
from edge_agent.processing.casting import cast
from edge_agent.processing.preprocess import apply_steps
from edge_contracts import limits
from edge_contracts.errors import BundleError
from edge_contracts.manifest import Input, Manifest

NUMBERS = "biuf"
_HEADER_BYTES = 4096  # an .npy header of our arrays is 128 bytes
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, EOFError)
_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_arrays(path: Path, *, what: str, kinds: str = NUMBERS) -> dict[str, Array]:
    """Read every array of an .npz archive.

    Member count and declared sizes are checked before anything is inflated, headers before an array is made, and
    nothing is ever unpickled. `kinds` are NumPy's letters of the types that are taken. Raises BundleError naming `what`
    and the array.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(members, what)
            return {_array_name(member): _read_member(archive, member, what, kinds) for member in members}
    except (*_DAMAGE, OSError, RuntimeError, ValueError) as error:
        raise BundleError(f"cannot be read: {error}", subject=what) from error


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays as a compressed .npz archive whose bytes depend only on the arrays. Raises OSError."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, np.ascontiguousarray(array), allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(member, data.getvalue(), zipfile.ZIP_DEFLATED)


def to_model(x: Array, tensor: Input) -> Array:
    """Return samples as the model is fed: through the declared steps, then `((x - offset) * scale)`, cast to the
    input's dtype. Without steps the shape is unchanged.

    `x` in `tensor.sample.dtype` is mapped; `x` already in the model's own dtype is returned as it is, unless both
    dtypes are equal: then the mapping always applies. Integer targets are rounded to the nearest, ties to even, and
    saturated. The caller has checked that the dtype is one of the two. Raises ContractError for a step that does not
    fit a sample, which only those of open size can bring about.
    """
    mapping = tensor.sample
    if x.dtype != mapping.dtype:
        return x
    if mapping.steps:
        x = apply_steps(x, mapping.steps)
    if mapping.offset == 0.0 and mapping.scale == 1.0:
        return x if x.dtype == tensor.dtype else cast(x, np.dtype(tensor.dtype))
    wide = np.dtype(np.float64 if x.dtype.itemsize > 4 else np.float32)
    mapped: np.ndarray[Any, np.dtype[np.floating[Any]]] = x.astype(wide)
    mapped = (mapped - wide.type(mapping.offset)) * wide.type(mapping.scale)
    return cast(mapped, np.dtype(tensor.dtype))


def bind(declared: Sequence[TensorInfo], wanted: Sequence[tuple[str, str]], *, what: str) -> tuple[str, ...]:
    """Return the engine's name for each of the manifest's tensors, given as (name, dtype): by name where all names
    agree, else by position (converters rename). Raises EngineError when counts or dtypes differ."""
    by_name = {info.name: info for info in declared}
    if len(declared) != len(wanted):
        raise EngineError(f"the model has {len(declared)}, the manifest {len(wanted)}", subject=what)
    same = all(name in by_name for name, _ in wanted)
    infos = [by_name[name] for name, _ in wanted] if same else list(declared)
    for info, (name, dtype) in zip(infos, wanted, strict=True):
        if info.dtype != dtype:
            raise EngineError(f"the model has {info.dtype}, the manifest {dtype}", subject=f"{what} {name}")
    return tuple(info.name for info in infos)


def bind_inputs(session: Session, manifest: Manifest) -> tuple[str, ...]:
    """Return the engine's name for each input of the manifest, in its order. Raises EngineError."""
    return bind(session.inputs, [(tensor.name, tensor.dtype) for tensor in manifest.inputs], what="input")


def bind_outputs(session: Session, manifest: Manifest) -> tuple[str, ...]:
    """Return the engine's name for each output of the manifest, in its order. Raises EngineError."""
    return bind(session.outputs, [(tensor.name, tensor.dtype) for tensor in manifest.outputs], what="output")


def sample_inputs(arrays: Tensors, manifest: Manifest, *, what: str) -> list[Array]:
    """Return `input_<i>` for each input of the manifest, an empty array for a constant or a state.

    Raises BundleError naming a missing or misfitting array.
    """
    found: list[Array] = []
    count: int | None = None
    for index, tensor in enumerate(manifest.inputs):
        if not tensor.sampled:
            found.append(np.empty(0, tensor.dtype))
            continue
        array = arrays.get(f"input_{index}")
        if array is None or array.dtype != tensor.sample.dtype or not array.ndim or len(array) != (count or len(array)):
            raise BundleError(f"input_{index} is missing or does not fit input {tensor.name}", subject=what)
        count = len(array)
        found.append(array)
    return found


def fixed_batch(manifest: Manifest) -> int:
    """Return how many samples the model takes at a time: more than one where its batch is fixed at more."""
    sizes = [tensor.shape[0] for tensor in manifest.inputs if tensor.shape]
    return max(1, *sizes) if sizes and all(tensor.sampled for tensor in manifest.inputs) else 1


def predict_batches(session: Session, manifest: Manifest, samples: Sequence[Array], step: int) -> list[Array]:
    """Return the answers of a model with a fixed batch of `step` samples, one array per output; the last batch is
    filled up with its last sample. Raises EngineError."""
    names, outputs = bind_inputs(session, manifest), bind_outputs(session, manifest)
    count = len(samples[0])
    mapped = [to_model(array, tensor) for array, tensor in zip(samples, manifest.inputs, strict=True)]
    collected: list[list[Array]] = [[] for _ in outputs]
    for start in range(0, count, step):
        pick = np.minimum(np.arange(start, start + step), count - 1)
        answer = session.run({name: array[pick] for name, array in zip(names, mapped, strict=True)})
        for parts, name in zip(collected, outputs, strict=True):
            parts.append(answer[name])
    return [np.concatenate(parts)[:count] for parts in collected]


def _array_name(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(".npy")


def _check_members(members: Sequence[zipfile.ZipInfo], what: str) -> None:
    if len(members) > limits.MAX_ARCHIVE_MEMBERS:
        raise BundleError(f"{len(members)} arrays, over {limits.MAX_ARCHIVE_MEMBERS}", subject=what)
    total = sum(member.file_size for member in members)
    if total > limits.MAX_ARCHIVE_BYTES:
        raise BundleError(f"{total} bytes unpacked, over {limits.MAX_ARCHIVE_BYTES}", subject=what)
    if any(member.compress_type not in _COMPRESSION for member in members):
        raise BundleError("only stored and deflated members are read", subject=what)
    if len({member.filename for member in members}) != len(members):
        raise BundleError("an array appears twice", subject=what)


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, what: str, kinds: str) -> Array:
    subject = f"{what}[{_array_name(member)[:80]}]"
    with archive.open(member) as file:
        try:
            shape, fortran, dtype = _read_header(file)
        except Exception as error:  # NumPy reads headers with Python's own parser and lets its errors through
            raise BundleError(f"not an array: {type(error).__name__}", subject=subject) from error
        size = math.prod(shape) * dtype.itemsize
        if dtype.kind not in kinds or min(shape, default=0) < 0 or size > member.file_size:
            raise BundleError(f"an array of {dtype} {shape} is not accepted here", subject=subject)
        data = file.read(size)
    if len(data) != size:
        raise BundleError("cut short", subject=subject)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="))


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file, max_header_size=_HEADER_BYTES)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file, max_header_size=_HEADER_BYTES)
    raise ValueError(f"format version {version}")
