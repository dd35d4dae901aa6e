"""What a task's model has to go through before a search: nothing, where an engine takes the file as it is.

Converting happens in a process of its own (`importing`), which holds the frameworks, under a limit of memory.
"""

from __future__ import annotations

import importlib.util
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx.helper import tensor_dtype_to_np_dtype

from edge_agent.bundle import hash_file
from edge_agent.inference.sample_runs import SampleRuns
from edge_agent.inference.samples import to_model
from edge_bench.task import FORMATS, IMPORTED, Task, check_names
from edge_bench.task_samples import TaskInput
from edge_compression.importers.import_process import (
    ERROR,
    HINT,
    KEEP_AXES,
    ONLY,
    ImportingError,
    Sample,
    check_extra,
    fix_axes,
)
from edge_compression.importers.label_outputs import class_names, has_text_outputs
from edge_compression.importers.mlflow import model_in
from edge_compression.onnx_tools.graph import SCALES_ALONG_AXES, opset
from edge_contracts.errors import MissingExtraError
from edge_contracts.limits import MIB
from edge_contracts.manifest import Input, SampleMapping
from edge_contracts.processing import ANY

TFLITE = {"ai_edge_litert": "ai-edge-litert", "ai_edge_quantizer": "ai-edge-quantizer"}
"""What compressing a .tflite takes, by module; the extra `compress-tflite` has it."""

TIMEOUT_S = 600.0
"""Reading and exporting the largest network that fits takes minutes; ten mean that it hangs."""

OPEN = "axes of any size"

OLD = f"an operator set before {SCALES_ALONG_AXES}"


def prepare_model(task: Task, folder: Path, memory_mb: float, say: Callable[[str], None]) -> Task:
    """Return the task with a model that an engine takes, made in `folder` if it has to be made; `source` names the file
    it was made of.

    Raises MlflowModelError, MissingExtraError, and ImportingError with the reason, which names the operator. An
    operator set that cannot be raised is no error: passes that need a newer one say so themselves.
    """
    source = model_in(task.model) if task.model.is_dir() else task.model
    as_it_is = replace(task, model=source, source=source)
    if source.suffix == ".tflite":
        _check_tflite()
        return as_it_is
    check_extra(source)
    sample = _sample(task, source)
    reasons = _reasons(source, sample)
    if not reasons:
        return as_it_is
    made = folder / f"imported-{hash_file(source)[:16]}.onnx"
    if source.suffix in IMPORTED and made.is_file():  # by a search that was killed; an .onnx may have changed beside it
        return replace(task, model=made, source=source)
    say(f"importing {source.name}: {', '.join(reasons)}")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        convert(source, made, sample, memory_mb)
    except ImportingError as error:
        optional = {OLD} if task.first.name is None else {OLD, OPEN}  # a branch may take no fixed size
        if not set(reasons) <= optional:
            raise
        say(f"{source.name} is used unchanged: {error}")
        return as_it_is
    return replace(task, model=made, source=source)


def _sample(task: Task, source: Path) -> Sample:
    """Return what the first calibration sample, or the first step of it, feeds a model: by name where it has several
    inputs. Raises ContractError when the task's names are not those of the model."""
    declared = _declared(source)
    if declared is None or task.first.name is None:
        first = task.first
        dtype = first.dtype or first.mapping.dtype
        shape = (-1, *task.x.shape[1:])
        return {ONLY: to_model(task.calibration[:1], Input(name="x", dtype=dtype, shape=shape, sample=first.mapping))}
    check_names(task, list(declared))
    tensors = [_tensor(one, declared[str(one.name)]) for one in task.inputs]
    samples = [np.empty(0) if one.calibration is None else one.calibration[:1] for one in task.inputs]
    return SampleRuns(tensors, list(map(str, (one.name for one in task.inputs))), samples).feeds(0)


def _declared(source: Path) -> dict[str, onnx.TypeProto.Tensor] | None:
    """Return the types of an ONNX model's inputs by name; None of another kind of file, or of one that is damaged."""
    if source.suffix != ".onnx":
        return None
    try:
        graph = onnx.load(source, load_external_data=False).graph
    except DecodeError:
        return None
    constants = {one.name for one in graph.initializer}
    return {info.name: info.type.tensor_type for info in graph.input if info.name not in constants}


def _tensor(one: TaskInput, declared: onnx.TypeProto.Tensor) -> Input:
    dtype = tensor_dtype_to_np_dtype(declared.elem_type).name
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else ANY for axis in declared.shape.dim)
    mapping = one.mapping if one.samples is not None else SampleMapping(dtype=dtype)
    return Input(
        name=str(one.name), dtype=dtype, shape=shape, sample=mapping, constant=one.constant,
        feedback=one.feedback,
    )  # fmt: skip


def _check_tflite() -> None:
    for module, distribution in TFLITE.items():
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError("compress-tflite", distribution)


def _reasons(source: Path, sample: Sample) -> list[str]:
    """Return why a file cannot be searched as it is. A file that is no model is left to the engine to refuse."""
    if source.suffix not in FORMATS:
        return [f"a {source.suffix} file"]
    try:
        model = onnx.load(source, load_external_data=False)
    except DecodeError:
        return []
    outside = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    found = {
        "data in other files": outside,
        OPEN: fix_axes(model, {name: array.shape for name, array in sample.items()}),
        "outputs that are no arrays of numbers": has_text_outputs(model),
        OLD: opset(model) < SCALES_ALONG_AXES,
    }
    return [reason for reason, holds in found.items() if holds]


def needs_import(source: Path) -> bool:
    """Return whether no engine takes a file as it is: of another format, with data beside it or outputs of text. A file
    that is no model is left to the engine to refuse."""
    if source.suffix not in FORMATS:
        return True
    try:
        model = onnx.load(source, load_external_data=False)
    except DecodeError:
        return False
    outside = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    return outside or has_text_outputs(model)


def names_of_classes(model: Path) -> tuple[str, ...]:
    """Return what a classifier calls its classes, in the order of its probabilities; empty where it does not say."""
    return class_names(onnx.load(model, load_external_data=False))


def convert(source: Path, out: Path, sample: Sample, memory_mb: float, *, keep_axes: bool = False) -> None:
    """Convert a model in a child process with at most so many megabytes; without a sample answers are not compared.
    Raises ImportingError with its reason."""
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        made, fed, said = (Path(scratch) / name for name in ("model.onnx", "sample.npz", "said"))
        words = [sys.executable, "-m", "edge_compression.importers.import_process", str(source), str(made)]
        if sample:
            np.savez(fed, allow_pickle=False, **sample)
            words.append(str(fed))
        words += [KEEP_AXES] if keep_axes else []
        with said.open("wb") as stderr, subprocess.Popen(words, stdout=stderr, stderr=stderr) as child:
            try:
                limit = int(memory_mb * MIB)
                resource.prlimit(child.pid, resource.RLIMIT_DATA, (limit, limit))
                code = child.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                raise ImportingError(f"took longer than {TIMEOUT_S:.0f} s", subject=source.name) from None
            finally:
                child.kill()
        if code != 0:
            raise _failed(code, said.read_text(errors="replace").splitlines(), source.name)
        made.replace(out)


def _failed(code: int, said: list[str], name: str) -> ImportingError:
    """Return the error a child ended with: its own words where it has any."""
    for line, after in reversed([*pairwise([*said, ""])]):
        if line.startswith(ERROR):
            hint = after.removeprefix(HINT) if after.startswith(HINT) else None
            return ImportingError(line.removeprefix(ERROR), hint=hint)
    last = said[-1][:400] if said else "no output"
    return ImportingError(f"the converter exited with code {code}: {last}", subject=name)
