"""The task file: a model, labeled samples, and how one becomes the other's input. Parsed once, checked against data.

    name = "watch_har"            # the bundle's name unless another is given
    model = "watch_har.onnx"      # beside the task file: .onnx, .tflite, or of a kind `compress` brings in
    metric = "top1"
    labels = ["walk", "run"]      # optional: class names
    license = "BSD-3-Clause"      # optional: of the model and its data
    [data]
    file = "watch_har.npz"        # x [N, ...], y [N], calib_x [M, ...]; optional array `slices` [N]
    train = "watch_har_train.npz" # optional: disjoint x, y for passes that recover quality
    [input]                       # what the model is fed: ((x - offset) * scale) cast to dtype
    dtype = "float32"
    scale = 1.0
    offset = 0.0
    shape = [-1, -1, -1, 3]       # optional with steps: the shape samples may have where the model serves
    [[input.steps]]               # optional: what is done to a sample before that; see docs/how-to/processing.md
    step = "resize"
    height = 96
    width = 96                    # and [[answer]]: what is made of the answers where the model serves
    [guard.input]                 # optional: what a device accepts; see docs/how-to/guards.md
    out_of_range = "reject"       # also [[guard.input.features]], [guard.output] and [last_resort]

Whether the model takes such samples is checked by `check_model` with what its engine declares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from edge_agent.inference.quality_metrics import METRICS
from edge_agent.inference.samples import read_arrays
from edge_agent.ports import TensorInfo
from edge_contracts import limits
from edge_contracts.answering import AnswerSteps, Spec, outputs_after
from edge_contracts.codec import StrictRecord, convert
from edge_contracts.errors import BundleError, ContractError, OperatorError
from edge_contracts.guards import InputGuard, OutputGuard
from edge_contracts.manifest import DType, Format, LastResort, SampleMapping
from edge_contracts.names import Name, Text
from edge_contracts.processing import ANY, Steps, shape_after
from edge_contracts.tensors import Input, Shape, check_sample
from edge_contracts.toml import decode_toml

Array = NDArray[Any]
FORMATS: dict[str, Format] = {".onnx": "onnx", ".tflite": "tflite"}
IMPORTED = (".pt2", ".skops")
"""Kinds of model files that no engine takes; `edge_compression.importers.prepare` makes ONNX of them."""

MLFLOW_MODEL = "MLmodel"
"""The file that makes a folder an MLflow model."""

REGISTRIES = ("models:/", "runs:/", "mlflow-artifacts:/")
"""How MLflow's names of models in a registry begin that have no host."""

RELATIVE = "paths in a task are relative to the task file"


class DataSection(StrictRecord, frozen=True, kw_only=True):
    """Where the samples are. `slices` names the array of group labels, used when it is there."""

    file: Text
    train: Text | None = None
    slices: Text = "slices"


class InputSection(StrictRecord, frozen=True, kw_only=True):
    """What the model is fed: `steps`, then ((x - offset) * scale) cast to `dtype`. `shape` is what samples may have
    where the model serves, with the batch first; that of the data's if not given."""

    dtype: DType
    scale: float = 1.0
    offset: float = 0.0
    shape: Shape = ()
    steps: Steps = ()


class GuardSection(StrictRecord, frozen=True, kw_only=True):
    """What a device accepts and answers. A range of the input that is not given is taken from calibration samples."""

    input: InputGuard = InputGuard()
    output: OutputGuard = OutputGuard()


class TaskFile(StrictRecord, frozen=True, kw_only=True):
    """The content of a task file."""

    name: Name
    model: Annotated[Text, Meta(min_length=1)]
    metric: Text = "top1"
    labels: Annotated[tuple[Text, ...], Meta(max_length=limits.MAX_LABELS)] = ()
    license: Text = ""
    data: DataSection
    input: InputSection
    answer: AnswerSteps = ()
    guard: GuardSection = GuardSection()
    last_resort: LastResort = LastResort()


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task with its samples read. `model` is the file an engine is given, `source` the one it was made of when it
    was brought in; `overlap` counts calibration samples that are evaluation samples as well; `training` is `x` of the
    file for recovery, unlabeled, in the type of the others."""

    path: Path
    file: TaskFile
    model: Path
    data: Path
    x: Array
    y: Array
    calibration: Array
    slices: Array | None
    overlap: int
    training: Array | None = None
    source: Path | None = None

    @property
    def format(self) -> Format:
        """The engines' name for the model's kind. Raises ContractError for a model that is to be brought in first."""
        if self.model.suffix not in FORMATS:
            what = f"no engine runs {self.model.name}"
            raise ContractError(what, subject=f"{self.path.name} model", hint="`edgewright compress` converts it")
        return FORMATS[self.model.suffix]

    @property
    def mapping(self) -> SampleMapping:
        """The mapping from a sample as it is stored."""
        section = self.file.input
        shape = (section.shape or (ANY, *self.x.shape[1:])) if section.steps else ()
        dtype = _sample_dtype(self.x)
        return SampleMapping(dtype=dtype, offset=section.offset, scale=section.scale, shape=shape, steps=section.steps)


def read_task(path: Path) -> Task:
    """Read a task file and its samples.

    Raises ContractError naming file and field, BundleError naming the array, OperatorError for an unknown metric.
    """
    file = _read_file(path)
    if file.metric not in METRICS:
        known = ", ".join(sorted(METRICS))
        raise OperatorError(f"{file.metric[:80]!r} is unknown", subject=f"{path.name} metric", hint=f"one of: {known}")
    if file.input.scale == 0.0 or not np.isfinite([file.input.scale, file.input.offset]).all():
        raise ContractError("scale must be finite and not 0, offset finite", subject=f"{path.name} input.scale")
    model, data = path.parent / file.model, path.parent / file.data.file
    _check_model_path(file.model, model, f"{path.name} model")
    if not _is_file(data):
        raise ContractError(f"no such file: {data}", subject=f"{path.name} data.file", hint=RELATIVE)
    arrays = read_arrays(data, what=data.name)
    x, y, calibration = (_array(arrays, name, data.name) for name in ("x", "y", "calib_x"))
    _check_arrays(x, y, calibration, data.name)
    _check_shape(file.input, x.shape, f"{path.name} input.shape")
    return Task(
        path=path,
        file=file,
        model=model,
        data=data,
        x=x,
        y=y,
        calibration=calibration,
        slices=_slices(arrays, file.data.slices, x.shape[0], data.name),
        overlap=overlap(x, calibration),
        training=_training(path.parent / file.data.train, x, path.name) if file.data.train else None,
    )


def _read_file(path: Path) -> TaskFile:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ContractError(f"cannot be read: {error.strerror}", subject=str(path)) from error
    content = decode_toml(data, what=str(path))
    try:
        return convert(content, TaskFile, what=f"{path.name} task")
    except ContractError as error:
        error.hint = "docs/how-to/compress-a-model.md shows every field of a task"
        raise


def _check_model_path(named: str, model: Path, subject: str) -> None:
    if "://" in named or named.startswith(REGISTRIES):
        hint = f"mlflow artifacts download --artifact-uri {named} --dst-path FOLDER, then model = FOLDER"
        raise ContractError("is a registry URI; a task needs local files", subject=subject, hint=hint)
    if _is_file(model / MLFLOW_MODEL):
        return
    known = (*FORMATS, *IMPORTED)
    if model.suffix not in known:
        hint = f"one of {', '.join(known)}, or the folder of an MLflow model"
        raise ContractError(f"{model.suffix!r} is not a supported model format", subject=subject, hint=hint)
    if not _is_file(model):
        raise ContractError(f"no such file: {model}", subject=subject, hint=RELATIVE)


def _is_file(path: Path) -> bool:
    """Return whether there is such a file; there is none of a name that the system would not take."""
    try:
        return path.is_file()
    except OSError:
        return False


def _array(arrays: dict[str, Array], name: str, what: str) -> Array:
    if name not in arrays:
        raise BundleError("array not found", subject=f"{what}[{name}]", hint="a task's data has x, y and calib_x")
    if arrays[name].ndim == 0 or arrays[name].shape[0] == 0:
        raise BundleError("contains no samples", subject=f"{what}[{name}]")
    return arrays[name]


def _check_arrays(x: Array, y: Array, calibration: Array, what: str) -> None:
    if x.shape[0] != y.shape[0]:
        raise BundleError(f"{y.shape[0]} values for {x.shape[0]} samples in x", subject=f"{what}[y]")
    if calibration.shape[1:] != x.shape[1:] or calibration.dtype != x.dtype:
        raise BundleError(
            f"samples of {calibration.shape[1:]} {calibration.dtype}, in x of {x.shape[1:]} {x.dtype}",
            subject=f"{what}[calib_x]",
        )
    for name, values in (("x", x), ("y", y), ("calib_x", calibration)):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise BundleError("contains NaN or infinity", subject=f"{what}[{name}]")


def _check_shape(section: InputSection, given: tuple[int, ...], what: str) -> None:
    """The shape of samples in service has those of the data among it."""
    shape = section.shape
    if not shape:
        return
    if not section.steps:
        raise ContractError("only steps can take samples of another shape", subject=what)
    if len(shape) != len(given) or any(w not in (ANY, g) for w, g in zip(shape[1:], given[1:], strict=True)):
        raise ContractError(f"{list(shape)}, the data's samples are {list(given[1:])}", subject=what)


def _slices(arrays: dict[str, Array], name: str, count: int, what: str) -> Array | None:
    if name not in arrays:
        if name != "slices":
            raise BundleError("array not found", subject=f"{what}[{name}]")
        return None
    if arrays[name].shape != (count,):
        raise BundleError(f"shape {arrays[name].shape}, one label a sample is ({count},)", subject=f"{what}[{name}]")
    return arrays[name]


def _training(data: Path, x: Array, task: str) -> Array:
    """Return the samples for recovery; they may be stored in a narrower type than the evaluation's."""
    if not _is_file(data):
        raise ContractError(f"no such file: {data}", subject=f"{task} data.train", hint=RELATIVE)
    found = _array(read_arrays(data, what=data.name), "x", data.name)
    if found.shape[1:] != x.shape[1:] or not np.can_cast(found.dtype, x.dtype, "safe"):
        what = f"samples of {found.shape[1:]} {found.dtype}, in {task}'s x of {x.shape[1:]} {x.dtype}"
        raise BundleError(what, subject=f"{data.name}[x]")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise BundleError("contains NaN or infinity", subject=f"{data.name}[x]")
    return found.astype(x.dtype, copy=False)


def overlap(x: Array, calibration: Array) -> int:
    """Return how many calibration samples are, byte for byte, evaluation samples too."""
    seen = {_digest(sample) for sample in x}
    return sum(_digest(sample) in seen for sample in calibration)


def _digest(sample: Array) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(sample).tobytes(), digest_size=16).digest()


def _sample_dtype(x: Array) -> DType:
    dtype: DType = msgspec.convert(x.dtype.name, DType)
    return dtype


def check_model(task: Task, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> None:
    """Compare the task with what the engine declares of the model. Raises ContractError naming the field."""
    name = task.path.name
    if len(inputs) != 1:
        names = ", ".join(info.name for info in inputs)
        raise ContractError(
            f"the model has {len(inputs)} inputs ({names}); a task supports one", subject=f"{name} model"
        )
    info = inputs[0]
    if info.dtype != task.file.input.dtype:
        raise ContractError(f"the model takes {info.dtype}", subject=f"{name} input.dtype")
    if info.shape and info.shape[0] not in (-1, 1):
        raise ContractError(
            f"the model's batch is fixed at {info.shape[0]}",
            subject=f"{name} model",
            hint="export it with a batch of 1 or of any size",
        )
    expected = info.shape[1:]
    given = shape_after(task.x.shape[1:], task.file.input.steps, f"{name} input.steps")
    if task.file.input.steps:
        fed = Input(name=info.name, dtype=task.file.input.dtype, shape=(ANY, *expected), sample=task.mapping)
        check_sample(fed, f"{name} input")
    specs = {one.name: Spec(dtype=one.dtype, shape=one.shape) for one in outputs}
    outputs_after(specs, task.file.answer, f"{name} answer")
    if len(expected) != len(given) or any(e not in (-1, g) for e, g in zip(expected, given, strict=True)):
        raise ContractError(f"samples of {given} for a model that takes {expected}", subject=f"{task.data.name}[x]")
    if task.file.metric == "top1":
        _check_classes(task, outputs[0])


def _check_classes(task: Task, output: TensorInfo) -> None:
    if task.y.dtype.kind not in "iu":
        raise ContractError(f"class indices are integers, not {task.y.dtype}", subject=f"{task.data.name}[y]")
    classes = output.shape[-1] if output.shape else -1
    low, high = int(task.y.min()), int(task.y.max())
    if low < 0 or (classes >= 0 and high >= classes):
        raise ContractError(f"labels {low} to {high} for {classes} classes", subject=f"{task.data.name}[y]")
    if task.file.labels and classes >= 0 and len(task.file.labels) != classes:
        raise ContractError(f"{len(task.file.labels)} for {classes} classes", subject=f"{task.path.name} labels")
