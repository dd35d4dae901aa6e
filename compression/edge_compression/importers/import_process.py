"""Making one ONNX file of a model: data from beside it, axes fixed, an exported program or an estimator converted.

    python -m edge_compression.importers.import_process MODEL OUT.onnx [SAMPLE.npz] [--keep-axes]

MODEL is .onnx, .pt2 (torch.export; extra `train`), .skops (scikit-learn; extra `sklearn`) or the folder of an MLflow
model that holds one of these. With a sample, as the model is fed, axes other than the first are fixed to its shape, and
the result must answer it as the source does. Outputs that no device is served become arrays
(`label_outputs`). `edgewright compress` does all this in a process of its own (`bring_in`).
Models over 2 GiB are refused: one protobuf message holds no more.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx.external_data_helper import load_external_data_for_model
from onnx.helper import tensor_dtype_to_np_dtype

from edge_bench.task import IMPORTED
from edge_compression.importers.label_outputs import servable_outputs
from edge_compression.importers.mlflow import model_in
from edge_compression.importers.sklearn import from_sklearn
from edge_compression.importers.torch_export import SAVE_AGAIN, ArchiveError, from_torch
from edge_compression.onnx_tools.graph import Array, initializers, save, session, upgraded
from edge_compression.pass_api import PassError
from edge_contracts.errors import BundleError, EdgewrightError, MissingExtraError, OperatorError
from edge_contracts.limits import MIB

MAX_BYTES = 2048 * MIB - 1
"""Of a protobuf message."""

OPSET = 17
"""Oldest operator set of an imported model: layer norms are one operator from here on."""

TOLERANCE = 1e-3
"""Largest difference of an answer from the source's, relative to its range: float arithmetic in another order."""

SUFFIXES = (".onnx", *IMPORTED)

ERROR, HINT = "error: ", "hint: "
KEEP_AXES = "--keep-axes"
USAGE = f"python -m edge_compression.importers.import_process MODEL OUT.onnx [SAMPLE.npz] [{KEEP_AXES}]"
"""How the lines begin that say why a conversion failed and what helps: the frameworks write to the same stream."""

NEEDS = {".pt2": ("train", ("torch", "onnxscript")), ".skops": ("sklearn", ("skops", "skl2onnx"))}
"""The extra that reads a kind of file, and the modules it is known by."""

Sample = Mapping[str, Array]
"""What a model is fed, by input."""

ONLY = "only"
"""Stands for a model's single input, whatever its name."""

Reference = Callable[[Sample, str], Array]
"""Gives what the model's source answers a sample, at the output of a name where it has names."""


class ImportingError(BundleError):
    """The model cannot be brought into one ONNX file; the message is the reader's or converter's reason."""

    reason = "import"


def check_extra(path: Path) -> None:
    """Raise MissingExtraError when what reads this kind of file is not installed."""
    extra, modules = NEEDS.get(path.suffix, ("", ()))
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(extra, module)


def import_model(path: Path, sample: Array | Sample | None = None, *, keep_axes: bool = False) -> bytes:
    """Return a model as the bytes of one checked ONNX file of operator set `OPSET` or newer, or of its own where the
    converter does not know an operator and there was more to do. `sample` has an array [1, ...] for each input, as the
    model is fed; a single array is for a single input. With `keep_axes` sizes stay open, and an ONNX file keeps its
    operator set.

    Raises ImportingError naming the file, with the operator that cannot be converted in the words of the converter, or
    the difference of the answers; OperatorError for another kind of file; MissingExtraError for what is not installed.
    """
    if path.is_dir():
        path = model_in(path)
    if path.suffix not in SUFFIXES:
        raise OperatorError("unknown model format", subject=path.name, hint=f"one of {', '.join(SUFFIXES)}")
    check_extra(path)
    if isinstance(sample, np.ndarray):
        sample = {ONLY: sample}
    model, reference = _read(path, sample)
    _check_size(model, path.name)
    changed = bool(servable_outputs(model)) | _has_data_beside(path)
    if sample is not None and not keep_axes:
        changed |= fix_axes(model, {name: array.shape for name, array in sample.items()})
    try:
        data = save(model if keep_axes and path.suffix == ".onnx" else _renewed(model, needed=not changed))
        onnx.checker.check_model(data)
    except (PassError, onnx.checker.ValidationError) as error:
        raise ImportingError(str(error)[:500], subject=path.name) from error
    if sample is not None:
        _compare(data, reference, sample, path.name)
    return data


def _renewed(model: onnx.ModelProto, *, needed: bool) -> onnx.ModelProto:
    """Return the model in a newer operator set; in its own where the converter cannot and something else was done to
    the file. Local functions are not converted: their operators have a set of their own."""
    if model.functions:
        return model
    try:
        return upgraded(model, OPSET)
    except PassError:
        if needed:
            raise
        return model


def _has_data_beside(path: Path) -> bool:
    if path.suffix != ".onnx":
        return False
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    return any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors)


def _read(path: Path, sample: Sample | None) -> tuple[onnx.ModelProto, Reference]:
    """Return the model as ONNX, and what gives its first answer in its own framework."""
    try:
        if path.suffix == ".pt2":
            program, alone = from_torch(path, OPSET + 1)
            return program, _of_one(alone)
        if path.suffix == ".skops":
            kinds = {array.dtype.name for array in (sample or {}).values()}
            estimator, alone = from_sklearn(path, OPSET, kinds.pop() if len(kinds) == 1 else "float32")
            return estimator, _of_one(alone)
        model = onnx.load(path, load_external_data=False)
        _check_size(model, path.name)
        # onnx refuses data whose location is outside the file's folder
        load_external_data_for_model(model, str(path.parent))
        return model, partial(_answer, str(path))
    except ImportingError:
        raise
    except ArchiveError as error:
        raise ImportingError(str(error), subject=path.name, hint=SAVE_AGAIN) from error
    except Exception as error:  # protobuf, exporters and the file system each raise their own
        raise ImportingError(_innermost(error), subject=path.name) from error


def _of_one(alone: Callable[[Array], Array]) -> Reference:
    """Return the reference of a source that takes one array and has one answer."""
    return lambda sample, output: alone(sample[ONLY])  # noqa: ARG005 - there is no name


def _check_size(model: onnx.ModelProto, name: str) -> None:
    """Raise ImportingError when the constants, wherever their data is, do not fit one message."""
    size = sum(
        math.prod(one.dims) * tensor_dtype_to_np_dtype(one.data_type).itemsize for one in model.graph.initializer
    )
    if size > MAX_BYTES:
        raise ImportingError(f"is {size // MIB} MiB with its data, at most {MAX_BYTES // MIB} fit", subject=name)


def _innermost(error: BaseException) -> str:
    """Return what the first of a chain of errors said: the exporter's last one tells next steps, not the operator."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


def fix_axes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Fix every axis of the model's inputs, but the first, that is of any size to a sample's; return whether there was
    one. `shapes` are by input, `ONLY` stands for a model's single one. Shapes known from before by the same name
    follow, others are left to be inferred again."""
    constants = initializers(model)
    inputs = [info for info in model.graph.input if info.name not in constants]
    if set(shapes) == {ONLY}:
        if len(inputs) != 1:
            return False  # what does not fit the task is said by `edge_bench.task.check_model`
        shapes = {inputs[0].name: shapes[ONLY]}
    known: dict[str, int] = {}
    free = []
    for info in inputs:
        axes, shape = info.type.tensor_type.shape.dim, shapes.get(info.name, ())
        if len(axes) != len(shape):
            continue
        found = [
            (axis, size) for axis, size in list(zip(axes, shape, strict=True))[1:] if not axis.HasField("dim_value")
        ]
        batch = axes[0].dim_param if axes else ""
        known |= {axis.dim_param: size for axis, size in found if axis.dim_param and axis.dim_param != batch}
        free += found
    for axis, size in free:
        axis.dim_value = size
    for info in (*model.graph.value_info, *model.graph.output):
        for axis in info.type.tensor_type.shape.dim:
            if axis.dim_param in known:
                axis.dim_value = known[axis.dim_param]
    return bool(free)


def _answer(model: str | bytes, sample: Sample, output: str | None = None) -> Array:
    """Return one output, the first if none is named, a list of dictionaries as the array of their values."""
    opened = session(model)
    feeds = {opened.get_inputs()[0].name if name == ONLY else name: array for name, array in sample.items()}
    found = opened.run(None if output is None else [output], feeds)[0]
    if isinstance(found, list) and found and isinstance(found[0], dict):
        found = [list(one.values()) for one in found]
    return np.asarray(found)


def _compare(data: bytes, reference: Reference, sample: Sample, name: str) -> None:
    """Raise ImportingError unless the imported model answers a sample as its source does, by its first output."""
    output = onnx.load_model_from_string(data).graph.output[0].name
    try:
        wanted = reference(sample, output).astype(np.float64)
        found = _answer(data, sample, output).astype(np.float64)
    except Exception as error:  # the frameworks and the engine raise their own
        raise ImportingError(f"cannot be run on a sample: {_innermost(error)}", subject=name) from error
    if wanted.shape != found.shape:
        raise ImportingError(f"outputs {found.shape}, the source outputs {wanted.shape}", subject=name)
    differ = ~((wanted == found) | (np.isnan(wanted) & np.isnan(found)))
    gap = float(np.max(np.abs(wanted - found)[differ], initial=0.0))
    if not gap <= TOLERANCE * max(1.0, float(np.ptp(wanted))):
        raise ImportingError(f"outputs differ after the conversion, by {gap:.3g}", subject=name)


def main(arguments: list[str]) -> int:
    """Convert one file; return the exit code of the error's class."""
    keep_axes = KEEP_AXES in arguments
    arguments = [word for word in arguments if word != KEEP_AXES]
    if len(arguments) not in (2, 3):
        sys.stderr.write(f"usage: {USAGE}\n")
        return 2
    try:
        sample = dict(np.load(arguments[2], allow_pickle=False)) if len(arguments) == 3 else None
        data = import_model(Path(arguments[0]), sample, keep_axes=keep_axes)
        Path(arguments[1]).write_bytes(data)
    except EdgewrightError as error:
        sys.stderr.write(f"{ERROR}{error}\n" + (f"{HINT}{error.hint}\n" if error.hint else ""))
        return error.exit_code
    sys.stdout.write(f"{arguments[1]}: {len(data)} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
