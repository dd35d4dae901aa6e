"""Bringing a model in: ONNX with its data in one file, or a program saved by torch.export, as one ONNX file.

    python -m edge_compression.importing model.pt2 model.onnx

`edgewright compress` takes the result. A .pt2 file is read by torch, which may unpickle parts of it: import only what
you made or trust. It needs torch and onnxscript (the extra `train`). Models over 2 GiB are refused: one protobuf
message holds no more.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

import onnx

from edge_compression.onnx_graph import save, upgraded
from edge_contracts.errors import BundleError, EdgewrightError, MissingExtraError, OperatorError
from edge_contracts.limits import MIB

MAX_BYTES = 2048 * MIB - 1
"""Of a protobuf message."""

OPSET = 17
"""Oldest operator set of an imported model: layer norms are one operator from here on."""

SUFFIXES = (".onnx", ".pt2")


class ImportingError(BundleError):
    """The model cannot be brought into one ONNX file; the message is the reader's or converter's reason."""

    reason = "import"


def import_model(path: Path) -> bytes:
    """Return a model as the bytes of one checked ONNX file of operator set `OPSET` or newer.

    Raises ImportingError naming the file, with the operator that cannot be converted in the words of the converter;
    OperatorError for another kind of file; MissingExtraError when torch is needed and not there.
    """
    if path.suffix not in SUFFIXES:
        raise OperatorError("no format that can be imported", subject=path.name, hint=f"one of {', '.join(SUFFIXES)}")
    model = _from_torch(path) if path.suffix == ".pt2" else _read(path)
    size = model.ByteSize()
    if size > MAX_BYTES:
        raise ImportingError(f"is {size // MIB} MiB with its data, at most {MAX_BYTES // MIB} fit", subject=path.name)
    data = save(upgraded(model, OPSET))
    try:
        onnx.checker.check_model(data)
    except onnx.checker.ValidationError as error:
        raise ImportingError(str(error)[:500], subject=path.name) from error
    return data


def _read(path: Path) -> onnx.ModelProto:
    """Read an ONNX file and the data beside it; onnx refuses locations outside the file's folder."""
    try:
        return onnx.load(path, load_external_data=True)
    except Exception as error:  # protobuf, onnx and the file system each raise their own
        raise ImportingError(f"{type(error).__name__}: {str(error)[:500]}", subject=path.name) from error


def _from_torch(path: Path) -> onnx.ModelProto:
    for module in ("torch", "onnxscript"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError("train", module)
    import torch

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model.onnx"
        try:
            program = torch.export.load(path)
            torch.onnx.export(program, (), out, dynamo=True, opset_version=OPSET + 1, verbose=False)
        except Exception as error:  # the exporter's own kinds
            raise ImportingError(_innermost(error), subject=path.name) from error
        return onnx.load(out, load_external_data=True)


def _innermost(error: BaseException) -> str:
    """Return what the first of a chain of errors said: the exporter's last one tells next steps, not the operator."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error)[:500]}"


def main(arguments: list[str]) -> int:
    """Convert one file; return the exit code of the error's class."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m edge_compression.importing MODEL.onnx|MODEL.pt2 OUT.onnx\n")
        return 2
    try:
        data = import_model(Path(arguments[0]))
        Path(arguments[1]).write_bytes(data)
    except EdgewrightError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{arguments[1]}: {len(data)} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
