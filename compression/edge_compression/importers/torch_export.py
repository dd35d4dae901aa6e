"""A program saved by `torch.export.save`, as an ONNX model. Nothing in the file is unpickled.

torch's reader unpickles the example inputs, and weights that are marked so. So it is given a copy of the archive that
has none of them: example inputs are left out, and an archive with pickled weights, objects or compiled code is refused.
"""

from __future__ import annotations

import importlib
import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx

from edge_compression.onnx_tools.graph import Array
from edge_contracts.codec import Record
from edge_contracts.limits import MIB

KEPT = (
    "archive_format",
    "archive_version",
    "byteorder",
    ".data/version",
    ".data/serialization_id",
    "models/",
    "data/weights/",
    "data/constants/",
    "extra/",
)
"""Records of the archive (torch/export/pt2_archive/constants.py) that hold text, JSON or the bytes of tensors."""

EXAMPLES = "data/sample_inputs/"
PAYLOADS = ("_weights_config.json", "_constants_config.json")
RAW = ("weight_", "tensor_")
"""How names of records with the plain bytes of a tensor begin; the others are objects."""

MAX_ARCHIVE_BYTES = 4096 * MIB
"""Of all records, unpacked: a model over 2 GiB is refused anyway, and no archive of one is twice as large."""

SAVE_AGAIN = "save it again with a current torch: torch.export.save(torch.export.export(model.eval(), (x,)), path)"


class ArchiveError(Exception):
    """The archive holds what would have to be unpickled, or is none; the message names the record."""


class _Payload(Record, frozen=True, kw_only=True):
    path_name: str
    use_pickle: bool


class _Payloads(Record, frozen=True, kw_only=True):
    config: dict[str, _Payload]


def without_pickles(path: Path) -> io.BytesIO:
    """Return a copy of the archive that torch reads without unpickling anything. Raises ArchiveError."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _copied(archive)
    except (zipfile.BadZipFile, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArchiveError(f"is not a program saved by torch.export: {str(error)[:200]}") from error


def _copied(archive: zipfile.ZipFile) -> io.BytesIO:
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if sum(info.file_size for info in infos) > MAX_ARCHIVE_BYTES:
        raise ArchiveError(f"unpacks to more than {MAX_ARCHIVE_BYTES // MIB} MiB")
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as copy:
        for info in infos:
            _, _, name = info.filename.partition("/")  # the archive's own name comes first
            if name.startswith(EXAMPLES):
                copy.writestr(info.filename, b"")  # torch takes an empty record for none
                continue
            if not name.startswith(KEPT):
                raise ArchiveError(f"record {name[:100]!r} is not one of a program's graph and weights")
            data = archive.read(info)
            if name.endswith(PAYLOADS):
                _check_payloads(data)
            copy.writestr(info.filename, data)
    made.seek(0)
    return made


def _check_payloads(data: bytes) -> None:
    for name, payload in msgspec.json.decode(data, type=_Payloads).config.items():
        if payload.use_pickle or not payload.path_name.startswith(RAW):
            raise ArchiveError(f"{name[:100]!r} is pickled, and nothing is unpickled here")


def from_torch(path: Path, opset: int) -> tuple[onnx.ModelProto, Callable[[Array], Array]]:
    """Return the ONNX model of a saved program and the program's own first answer as a function of its input.

    Raises ArchiveError, and whatever torch and its exporter raise; the innermost cause names the operator.
    """
    torch: Any = importlib.import_module("torch")
    program = torch.export.load(without_pickles(path))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model.onnx"
        torch.onnx.export(program, (), out, dynamo=True, opset_version=opset, verbose=False)
        model = onnx.load(out, load_external_data=True)

    def answer(x: Array) -> Array:
        with torch.no_grad():
            found = program.module()(torch.from_numpy(x))
        while isinstance(found, (tuple, list, dict)):
            found = next(iter(found.values() if isinstance(found, dict) else found))
        return np.asarray(found.numpy())

    return model, answer
