"""The task file: a model, its samples, what is right, and how one becomes the other's input. Parsed once, checked
against data.

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

Several inputs are `[inputs.NAME]`, what is judged `[[outputs]]`; the records are in `task_format`, docs/how-to/tasks.md
explains them. Whether the model takes such samples is checked by `check_model` with what its engine declares; what it
answers is checked by `edge_bench.judged`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.ports import TensorInfo
from edge_bench.metrics.registry import metric_named
from edge_bench.protocol import FedInput
from edge_bench.task_data import Arrays, array_of, load_data, no_such
from edge_bench.task_format import DataSection, GuardSection, InputSection, NamedInput, OutputSection, TaskFile
from edge_bench.task_samples import JudgedOutput, TaskInput, judged_outputs, named_inputs, set_aside
from edge_contracts.answering import Spec, outputs_after
from edge_contracts.codec import convert
from edge_contracts.errors import BundleError, ContractError, EdgewrightError
from edge_contracts.manifest import DType, Format, SampleMapping
from edge_contracts.processing import ANY, shape_after
from edge_contracts.tensors import Input, check_sample, may_be
from edge_contracts.toml import decode_toml

__all__ = ["DataSection", "GuardSection", "InputSection", "NamedInput", "OutputSection", "Task", "TaskFile"]

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
FORMATS: dict[str, Format] = {".onnx": "onnx", ".tflite": "tflite"}
IMPORTED = (".pt2", ".skops")
"""Kinds of model files that no engine takes; `edge_compression.importers.prepare` makes ONNX of them."""

MLFLOW_MODEL = "MLmodel"
"""The file that makes a folder an MLflow model."""

REGISTRIES = ("models:/", "runs:/", "mlflow-artifacts:/")
"""How MLflow's names of models in a registry begin that have no host."""

RELATIVE = "paths in a task are relative to the task file"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task with its samples read. `model` is the file an engine is given, `source` the one it was made of when it
    was brought in; `overlap` counts calibration samples that are evaluation samples as well; `inputs` has the samples
    of each input, `judged` what is right of each output that the task names; `split` tells that calibration samples
    were set aside from the others. `data` is a file or folder that stands for all samples."""

    path: Path
    file: TaskFile
    model: Path
    data: Path
    inputs: tuple[TaskInput, ...]
    judged: tuple[JudgedOutput, ...]
    slices: Array | None
    overlap: int
    split: bool = False
    source: Path | None = None

    @property
    def format(self) -> Format:
        """The engines' name for the model's kind. Raises ContractError for a model that is to be brought in first."""
        if self.model.suffix not in FORMATS:
            what = f"no engine runs {self.model.name}"
            raise ContractError(what, subject=f"{self.path.name} model", hint="`edgewright compress` converts it")
        return FORMATS[self.model.suffix]

    @property
    def sampled(self) -> tuple[TaskInput, ...]:
        """The inputs that samples are fed to; there is one at least."""
        return tuple(one for one in self.inputs if one.samples is not None)

    @property
    def first(self) -> TaskInput:
        """The first input that samples are fed to."""
        return self.sampled[0]

    @property
    def sequences(self) -> bool:
        """Whether each sample is a sequence of steps."""
        return any(one.feedback is not None for one in self.inputs)

    @property
    def count(self) -> int:
        """The number of evaluation samples."""
        return int(self.x.shape[0])

    @property
    def x(self) -> Array:
        """The evaluation samples of the first input."""
        assert self.first.samples is not None
        return self.first.samples

    @property
    def y(self) -> Array:
        """What is right of the first output that is judged, where it is an array; else zeros, one a sample."""
        truth = self.judged[0].truth if self.judged else None
        return truth if isinstance(truth, np.ndarray) else np.zeros(self.count, np.int64)

    @property
    def calibration(self) -> Array:
        """The calibration samples of the first input."""
        assert self.first.calibration is not None
        return self.first.calibration

    @property
    def training(self) -> Array | None:
        """The first input's samples for recovery, unlabeled, in the type of the others."""
        return self.first.training

    @property
    def mapping(self) -> SampleMapping:
        """The mapping from a sample of the first input as it is stored."""
        return self.first.mapping

    @property
    def metric(self) -> str:
        """The first output's metric."""
        return self.judged[0].metric.name if self.judged else "fidelity"

    @property
    def fed(self) -> tuple[FedInput, ...]:
        """How each input is fed, for the measuring process."""
        return tuple(one.fed for one in self.inputs)


def read_task(path: Path) -> Task:
    """Read a task file and its samples.

    Raises ContractError naming file and field, BundleError naming the array, OperatorError for an unknown metric or a
    function that fails.
    """
    file = _read_file(path)
    model = path.parent / file.model
    _check_model_path(file.model, model, f"{path.name} model")
    for number, one in enumerate(file.outputs):
        _known(one.metric, path, f"{path.name} outputs[{number}] metric")
    if file.metric is not None:
        _known(file.metric, path, f"{path.name} metric")
    loaded = load_data(path, file)
    inputs = named_inputs(path, file, loaded)
    judged = judged_outputs(path, file, loaded)
    slices = _slices(loaded, file)
    split = inputs[next(i for i, one in enumerate(inputs) if one.samples is not None)].calibration is None
    if split:
        inputs, judged, slices = set_aside(inputs, judged, slices, path.name)
    first = next(one for one in inputs if one.samples is not None)
    assert first.samples is not None
    assert first.calibration is not None
    return Task(
        path=path,
        file=file,
        model=model,
        data=loaded.path,
        inputs=inputs,
        judged=judged,
        slices=slices,
        overlap=0 if split else overlap(first.samples, first.calibration),
        split=split,
    )


def _known(metric: str, path: Path, subject: str) -> None:
    try:
        metric_named(metric, path.parent)
    except EdgewrightError as error:
        raise type(error)(str(error), subject=subject, hint=error.hint) from error


def _read_file(path: Path) -> TaskFile:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ContractError(f"cannot be read: {error.strerror}", subject=str(path)) from error
    content = decode_toml(data, what=str(path))
    try:
        file = convert(content, TaskFile, what=f"{path.name} task")
    except ContractError as error:
        error.hint = "docs/how-to/compress-a-model.md shows every field of a task"
        raise
    what = f"{path.name} "
    if (file.input is None) == (not file.inputs):
        raise ContractError("either [input] or [inputs.NAME] for each input", subject=what + "input")
    if file.outputs and file.metric is not None:
        raise ContractError("each of [[outputs]] has its own", subject=what + "metric")
    return file


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


def _slices(loaded: Arrays, file: TaskFile) -> Array | None:
    name = file.data.slices if isinstance(file.data, DataSection) else "slices"
    if name not in loaded.arrays:
        if name != "slices":
            raise no_such(loaded, name)
        return None
    found = array_of(loaded, name)
    if found.shape != (loaded.count,):
        what = f"shape {found.shape}, one label a sample is ({loaded.count},)"
        raise BundleError(what, subject=loaded.subject(name))
    return found


def overlap(x: Array, calibration: Array) -> int:
    """Return how many calibration samples are, byte for byte, evaluation samples too."""
    seen = {_digest(sample) for sample in x}
    return sum(_digest(sample) in seen for sample in calibration)


def _digest(sample: Array) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(sample).tobytes(), digest_size=16).digest()


def sample_dtype(x: Array) -> DType:
    """Return the name of an array's dtype. Raises msgspec.ValidationError for one that no tensor has."""
    dtype: DType = msgspec.convert(x.dtype.name, DType)
    return dtype


def check_model(task: Task, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> None:
    """Compare the task with what the engine declares of the model. Raises ContractError naming the field."""
    name = task.path.name
    check_names(task, [info.name for info in inputs])
    for one in task.inputs:
        info = inputs[0] if one.name is None else next(info for info in inputs if info.name == one.name)
        _check_input(task, one, info, f"{name} input" if one.name is None else f"{name} inputs.{one.name}")
        if one.feedback is not None:
            _check_feedback(one.feedback, info, outputs, f"{name} inputs.{one.name}.feedback")
    specs = {one.name: Spec(dtype=one.dtype, shape=one.shape) for one in outputs}
    known = outputs_after(specs, task.file.answer, f"{name} answer")
    _check_outputs(task, outputs, known)


def check_names(task: Task, names: Sequence[str]) -> None:
    """Compare the task's inputs with the names of the model's. Raises ContractError naming the field."""
    listed = ", ".join(names)
    if task.inputs[0].name is None:
        if len(names) != 1:
            hint = "one table [inputs.NAME] for each, with data, constant or feedback"
            what = f"the model has {len(names)} inputs ({listed}); [input] feeds one"
            raise ContractError(what, subject=f"{task.path.name} model", hint=hint)
        return
    given = [str(one.name) for one in task.inputs]
    for name in given:
        if name not in names:
            raise ContractError(f"the model's inputs are {listed}", subject=f"{task.path.name} inputs.{name}")
    for name in names:
        if name not in given:
            hint = f'add [inputs."{name}"] with data, constant or feedback'
            raise ContractError(f"nothing is said of input {name!r}", subject=f"{task.path.name} inputs", hint=hint)


def _check_input(task: Task, one: TaskInput, info: TensorInfo, what: str) -> None:
    if one.dtype is not None and info.dtype != one.dtype:
        raise ContractError(f"the model takes {info.dtype}", subject=f"{what}.dtype")
    if one.constant is not None:
        wanted = int(np.prod([max(size, 1) for size in info.shape]))
        if len(one.constant) != wanted:
            text = f"{len(one.constant)} numbers, the model takes {list(info.shape)}"
            raise ContractError(text, subject=f"{what}.constant")
        return
    if one.samples is None:
        return
    step = one.samples.shape[2:] if task.sequences else one.samples.shape[1:]
    subject = f"{task.data.name}[{one.data}]"
    if task.sequences and one.samples.ndim < 2:
        raise ContractError("beside a state samples are sequences [N, T, ...]", subject=subject)
    given = shape_after(step, one.steps, f"{what}.steps")
    batchless = len(info.shape) == len(given) and not one.steps
    expected = info.shape if batchless else info.shape[1:]
    if not batchless and info.shape and info.shape[0] not in (-1, 1):
        hint = "export it with a batch of 1 or of any size"
        raise ContractError(
            f"the model's batch is fixed at {info.shape[0]}", subject=f"{task.path.name} model", hint=hint
        )
    if one.steps:
        fed = Input(name=info.name, dtype=info.dtype, shape=(ANY, *expected), sample=one.mapping)  # type: ignore[arg-type]
        check_sample(fed, what)
    if not may_be(expected, given):
        raise ContractError(f"samples of {given} for a model that takes {tuple(expected)}", subject=subject)


def _check_feedback(source: str, info: TensorInfo, outputs: Sequence[TensorInfo], what: str) -> None:
    made = next((one for one in outputs if one.name == source), None)
    if made is None:
        raise ContractError(f"the model's outputs are {', '.join(one.name for one in outputs)}", subject=what)
    if made.dtype != info.dtype or not may_be(made.shape, info.shape):
        text = f"{made.dtype} {list(made.shape)} comes out, {info.dtype} {list(info.shape)} goes in"
        raise ContractError(text, subject=what)


def _check_outputs(task: Task, outputs: Sequence[TensorInfo], known: dict[str, Spec]) -> None:
    name = task.path.name
    for number, one in enumerate(task.judged):
        if one.name is None:
            spec = known[outputs[0].name]
        elif one.name in known:
            spec = known[one.name]
        elif f"{one.name}_boxes" in known:
            continue
        else:
            text = f"no output {one.name!r}; there are {', '.join(known)}"
            raise ContractError(text, subject=f"{name} outputs[{number}].name")
        if one.metric.name == "top1" and one.truth is not None and one.axis in (-1, len(spec.shape) - 1):
            _check_classes(task, one, spec)


def _check_classes(task: Task, one: JudgedOutput, spec: Spec) -> None:
    truth, classes = one.truth, spec.shape[-1] if len(spec.shape) > 1 else -1
    assert isinstance(truth, np.ndarray)
    subject = f"{task.data.name}[{one.truth_name}]"
    if truth.dtype.kind not in "iu":
        raise ContractError(f"class indices are integers, not {truth.dtype}", subject=subject)
    low, high = int(truth.min(initial=0)), int(truth.max(initial=0))
    if low < 0 or (classes >= 2 and high >= classes):
        raise ContractError(f"labels {low} to {high} for {classes} classes", subject=subject)
    if task.file.labels and classes >= 2 and len(task.file.labels) != classes:
        raise ContractError(f"{len(task.file.labels)} for {classes} classes", subject=f"{task.path.name} labels")
