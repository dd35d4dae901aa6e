"""The samples of a task, input by input, and what is right of each output: taken from the arrays by name, checked.

Where the arrays come from is in `task_data`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_bench.metrics.boxes import Boxes, as_boxes
from edge_bench.metrics.registry import Metric, Parameters, metric_named
from edge_bench.metrics.table import Array
from edge_bench.protocol import FedInput
from edge_bench.task_data import Arrays, array_of, no_such, read_training
from edge_bench.task_format import Allowance, InputSection, NamedInput, OutputSection, TaskFile, allowance
from edge_contracts.errors import BundleError, ContractError, EdgewrightError
from edge_contracts.manifest import DType, SampleMapping
from edge_contracts.processing import ANY, Steps

SPLIT_SHARE, MIN_SPLIT, MAX_SPLIT = 0.2, 8, 256
"""Share of the samples that is set aside for calibration where the task has none, and the bounds of how many."""

Truth = Array | list[Boxes]


@dataclass(frozen=True, kw_only=True)
class TaskInput:
    """One input: `samples` [N, ...] with `calibration` [M, ...] and, for recovery, `training`, or a `constant`, or the
    name of the output that is fed back. `name` is None for the model's only input; `dtype` None for the model's."""

    name: str | None
    data: str = "x"
    dtype: DType | None = None
    offset: float = 0.0
    scale: float = 1.0
    shape: tuple[int, ...] = ()
    steps: Steps = ()
    samples: Array | None = None
    calibration: Array | None = None
    training: Array | None = None
    constant: tuple[int | float, ...] | None = None
    feedback: str | None = None

    @property
    def mapping(self) -> SampleMapping:
        """The mapping from a sample as it is stored; of a constant or a state there is none but its own dtype."""
        if self.samples is None:
            return SampleMapping(dtype=self.dtype or "float32")
        shape = (self.shape or (ANY, *self.samples.shape[1:])) if self.steps else ()
        dtype: DType = msgspec.convert(self.samples.dtype.name, DType)
        return SampleMapping(dtype=dtype, offset=self.offset, scale=self.scale, shape=shape, steps=self.steps)

    @property
    def fed(self) -> FedInput:
        """How the measuring process feeds it."""
        mapping = self.mapping if self.samples is not None else None
        return FedInput(name=self.name, mapping=mapping, constant=self.constant, feedback=self.feedback)


@dataclass(frozen=True, kw_only=True)
class JudgedOutput:
    """What is judged: `name` is None for the model's first output. `truth` is None where the original's answers are
    what is right. `subject` is where the task says so."""

    name: str | None
    metric: Metric
    truth: Truth | None
    truth_name: str = "y"
    axis: int = -1
    weight: float = 1.0
    max_drop: Allowance | None = None
    unit: str = ""
    threshold: float | None = None
    k: int | None = None
    subject: str = "task"

    @property
    def parameters(self) -> Parameters:
        return Parameters(axis=self.axis, threshold=self.threshold, k=self.k)


def named_inputs(path: Path, file: TaskFile, loaded: Arrays) -> tuple[TaskInput, ...]:
    """Return the inputs with their samples. Raises ContractError naming the field, BundleError naming the array."""
    if file.input is not None:
        return (_sampled(path, file, loaded, None, _old(file.input)),)
    found = []
    for name, section in file.inputs.items():
        what = f"{path.name} inputs.{name}"
        kinds = [section.data is not None, section.constant is not None, section.feedback is not None]
        if sum(kinds) > 1:
            raise ContractError("is either data, a constant or fed back", subject=what)
        if section.constant is not None:
            found.append(TaskInput(name=name, dtype=section.dtype, constant=_constant(section.constant, what)))
        elif section.feedback is not None:
            found.append(TaskInput(name=name, dtype=section.dtype, feedback=section.feedback))
        else:
            found.append(_sampled(path, file, loaded, name, section))
    counts = {one.data: len(one.samples) for one in found if one.samples is not None}
    if not counts:
        raise ContractError("no input takes samples: one needs data", subject=f"{path.name} inputs")
    for name, count in counts.items():
        if count != loaded.count:
            what = f"{count} samples, {loaded.first} has {loaded.count}"
            raise BundleError(what, subject=loaded.subject(name))
    return tuple(found)


def _old(section: InputSection) -> NamedInput:
    return NamedInput(
        data="x", dtype=section.dtype, scale=section.scale, offset=section.offset, shape=section.shape,
        steps=section.steps,
    )  # fmt: skip


def _constant(value: Any, what: str) -> tuple[int | float, ...]:
    try:
        array = np.asarray(value)
        numbers = array.reshape(-1).tolist()
    except ValueError as error:
        raise ContractError("is a number or a list of numbers", subject=f"{what}.constant") from error
    if array.dtype.kind not in "biuf" or not np.isfinite(array.astype(np.float64)).all():
        raise ContractError("is a finite number or a list of such", subject=f"{what}.constant")
    return tuple(numbers)


def _sampled(path: Path, file: TaskFile, loaded: Arrays, name: str | None, section: NamedInput) -> TaskInput:
    what = f"{path.name} input" if name is None else f"{path.name} inputs.{name}"
    if section.scale == 0.0 or not np.isfinite([section.scale, section.offset]).all():
        raise ContractError("scale must be finite and not 0, offset finite", subject=f"{what}.scale")
    data = section.data or (name if name in loaded.arrays else "x")
    if data is None or data not in loaded.arrays:
        raise no_such(loaded, data or "x", f"{what}.data")
    x = array_of(loaded, data)
    _check_numbers(x, loaded.subject(data), nan=True)
    _check_shape(section, x.shape, f"{what}.shape")
    calibration = _calibration(loaded, data, x)
    training = read_training(path, file, data, x)
    return TaskInput(
        name=name, data=data, dtype=section.dtype, offset=section.offset, scale=section.scale, shape=section.shape,
        steps=section.steps, samples=x, calibration=calibration, training=training,
    )  # fmt: skip


def _calibration(loaded: Arrays, data: str, x: Array) -> Array | None:
    name = f"{loaded.calibration or 'calib'}_{data}"
    if name not in loaded.arrays:
        if loaded.calibration is not None or any(one.startswith("calib_") for one in loaded.arrays):
            raise no_such(loaded, name)
        return None
    found = array_of(loaded, name)
    subject = loaded.subject(name)
    if found.shape[1:] != x.shape[1:] or found.dtype != x.dtype:
        what = f"samples of {found.shape[1:]} {found.dtype}, in {data} of {x.shape[1:]} {x.dtype}"
        raise BundleError(what, subject=subject)
    _check_numbers(found, subject, nan=x.dtype.kind == "f" and bool(np.isnan(x).any()))
    return found


def _check_numbers(values: Array, subject: str, *, nan: bool) -> None:
    """Refuse what is no number, infinite, or NaN where there may be none. Whether the model takes NaN shows when it is
    asked."""
    if values.dtype.kind not in "biuf":
        raise BundleError(f"samples are numbers, not {values.dtype}", subject=subject)
    if values.dtype.kind == "f" and not (np.isfinite(values) | (np.isnan(values) & nan)).all():
        what = "contains infinity" if nan else "contains NaN or infinity"
        raise BundleError(what, subject=subject)


def _check_shape(section: NamedInput, given: tuple[int, ...], what: str) -> None:
    """The shape of samples in service has those of the data among it."""
    shape = section.shape
    if not shape:
        return
    if not section.steps:
        raise ContractError("only steps can take samples of another shape", subject=what)
    if len(shape) != len(given) or any(w not in (ANY, g) for w, g in zip(shape[1:], given[1:], strict=True)):
        raise ContractError(f"{list(shape)}, the data's samples are {list(given[1:])}", subject=what)


def judged_outputs(path: Path, file: TaskFile, loaded: Arrays) -> tuple[JudgedOutput, ...]:
    """Return what the task judges, in its order. Raises ContractError naming the field, BundleError the array."""
    if file.outputs:
        return tuple(
            _judged(path, loaded, one, f"{path.name} outputs[{index}]") for index, one in enumerate(file.outputs)
        )
    if file.input is None and file.metric is None:
        return ()
    metric = metric_named(file.metric or "top1", path.parent)
    if file.metric is None and "y" not in loaded.arrays and file.input is not None:
        raise no_such(loaded, "y")
    truth = _truth(loaded, "y", metric) if metric.name != "fidelity" or "y" in loaded.arrays else None
    return (JudgedOutput(name=None, metric=metric, truth=truth, subject=f"{path.name} metric"),)


def _judged(path: Path, loaded: Arrays, one: OutputSection, subject: str) -> JudgedOutput:
    metric = metric_named(one.metric, path.parent)
    limit = None if one.max_drop is None else allowance(one.max_drop, f"{subject}.max_drop")
    if one.unit and (limit is None or limit.unit):
        raise ContractError("stands beside a max_drop that is a plain number", subject=f"{subject}.unit")
    if one.unit and metric.unit != "percent":
        raise ContractError(f"{metric.name} has no unit", subject=f"{subject}.unit")
    if one.threshold is not None and not np.isfinite(one.threshold):
        raise ContractError("must be finite", subject=f"{subject}.threshold")
    for name in ("threshold", "k"):
        if getattr(one, name) is None and f"{metric.name}" in _NEEDS.get(name, ()):
            raise ContractError(f"{metric.name} needs it", subject=f"{subject}.{name}")
    if one.truth is None and metric.without_truth is None and metric.unit == "points":
        raise ContractError(f"{metric.name} needs an array with what is right", subject=f"{subject}.truth")
    truth = None if one.truth is None else _truth(loaded, one.truth, metric)
    return JudgedOutput(
        name=one.name, metric=metric, truth=truth, truth_name=one.truth or "", axis=one.axis, weight=one.weight,
        max_drop=limit, unit=one.unit, threshold=one.threshold, k=one.k, subject=subject,
    )  # fmt: skip


_NEEDS = {"threshold": ("accuracy_at", "f1_at"), "k": ("recall_at",)}


def _truth(loaded: Arrays, name: str, metric: Metric) -> Truth:
    found = array_of(loaded, name, empty=metric.sort == "boxes")
    subject = loaded.subject(name)
    if metric.sort == "boxes":
        try:
            return as_boxes(found, loaded.count)
        except EdgewrightError as error:
            raise BundleError(str(error), subject=subject, hint=error.hint) from error
    if found.shape[0] != loaded.count:
        raise BundleError(f"{found.shape[0]} values for {loaded.count} samples in {loaded.first}", subject=subject)
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise BundleError("contains NaN or infinity", subject=subject)
    return found


def set_aside(
    inputs: Sequence[TaskInput], judged: Sequence[JudgedOutput], slices: Array | None, what: str
) -> tuple[tuple[TaskInput, ...], tuple[JudgedOutput, ...], Array | None]:
    """Set a part of the samples aside for calibration, by a fixed seed, and leave it out of what is evaluated."""
    count = next(len(one.samples) for one in inputs if one.samples is not None)
    wanted = int(np.clip(SPLIT_SHARE * count, min(MIN_SPLIT, count // 2), MAX_SPLIT))
    if wanted < 1:
        raise BundleError(f"{count} samples are too few to set one aside for calibration", subject=f"{what} data")
    order = np.random.default_rng(0).permutation(count)
    aside, left = np.sort(order[:wanted]), np.sort(order[wanted:])
    cut = tuple(
        one if one.samples is None else replace(one, samples=one.samples[left], calibration=one.samples[aside])
        for one in inputs
    )
    kept = tuple(replace(one, truth=taken(one.truth, left)) for one in judged)
    return cut, kept, None if slices is None else slices[left]


def taken(truth: Truth | None, index: Array) -> Truth | None:
    """Return what is right of some samples."""
    if truth is None or isinstance(truth, np.ndarray):
        return None if truth is None else truth[index]
    return [truth[int(one)] for one in index]
