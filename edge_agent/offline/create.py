"""Making a bundle of any model that an engine runs, without compressing it and without a metric.

The model is one variant. Its golden answers are those that it gave here, to samples or to made-up inputs: a device
proves that its engine answers alike. Choosing between models, floors of quality and thresholds are `compress`'s.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from edge_agent.bundle import file_entry, hash_file
from edge_agent.engines.registry import engine_for
from edge_agent.errors import EngineError
from edge_agent.inference.guards import may_be_infinite
from edge_agent.inference.quality_metrics import golden_error
from edge_agent.inference.sample_runs import SampleRuns
from edge_agent.inference.samples import write_arrays
from edge_agent.offline.random_inputs import Shapes, made_up, sizes_of
from edge_agent.ports import Array, Engine, EngineSettings, Session, TensorInfo
from edge_contracts.answering import AnswerSteps
from edge_contracts.codec import convert
from edge_contracts.errors import OperatorError
from edge_contracts.guards import InputGuard
from edge_contracts.limits import KIB
from edge_contracts.manifest import (
    MANIFEST_NAME,
    EngineFloor,
    Format,
    Input,
    LastResort,
    Lineage,
    Manifest,
    Output,
    Requirements,
    SampleMapping,
    SampleSet,
    Variant,
    check_last_resort,
    manifest_bytes,
    schema_for,
)
from edge_contracts.tensors import check_inputs

GOLDEN, ORIGINAL = "golden.npz", "original"
MAX_GOLDEN = 8
GOLDEN_BYTES, GOLDEN_SHARE = 64 * KIB, 0.15
"""What golden samples and answers may weigh, in bytes or as a share of the model, whichever is more; one sample is
always there."""

MADE_UP_STEPS = 4
"""Steps of a made-up sequence: a state that is carried wrongly shows at the second."""

LEAST_TOLERANCE, MAX_ERROR = 1e-3, 0.5
"""As `compress` has them: beyond half of the output's range a golden sample proves nothing."""

ANY_TOLERANCE = 1e9
"""Of answers that are random, or have NaN now and then: their shapes are all that is proved."""

ONLY = ""
"""Stands for a model's single input, whatever its name."""

FORMATS: Mapping[str, Format] = {".onnx": "onnx", ".tflite": "tflite"}
_RUNS, _RUNS_S = 20, 2.0


@dataclass(frozen=True, kw_only=True)
class FedBy:
    """What an input is fed: `samples` [N, ...] through `mapping`, a constant, or the output that is fed back."""

    samples: Array | None = None
    mapping: SampleMapping | None = None
    guard: InputGuard = field(default_factory=InputGuard)
    constant: tuple[int | float, ...] | None = None
    feedback: str | None = None


@dataclass(frozen=True, kw_only=True)
class Creation:
    """What a bundle is made of: a model file that an engine takes, what it is fed, and what is declared about it.
    `inputs` are by the model's names; those that are left out are fed made-up values, of `shapes` where the model
    leaves sizes open. `source` is the file that the model was made of."""

    model: Path
    name: str
    version: str
    source: Path | None = None
    license: str = ""
    labels: tuple[str, ...] = ()
    inputs: Mapping[str, FedBy] = field(default_factory=dict)
    shapes: Shapes = field(default_factory=dict)
    answer: AnswerSteps = ()
    last_resort: LastResort = field(default_factory=LastResort)
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class Created:
    """The bundle's manifest, and in words what its proof lacks."""

    manifest: Manifest
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Proof:
    """Golden samples with the answers to them, how far they may be off, and a request's median time."""

    samples: tuple[Array, ...]
    answers: tuple[Array, ...]
    tolerance: float
    latency_ms: float
    notes: tuple[str, ...]


def create(plan: Creation, folder: Path, now: datetime) -> Created:
    """Write the bundle into an empty folder.

    Raises EngineError when the engine does not take the model or cannot answer, OperatorError for inputs, sizes and
    samples that do not fit it, ContractError for declarations that do not.
    """
    if plan.model.suffix not in FORMATS:
        raise OperatorError(f"{plan.model.suffix!r} is not a format that an engine runs", subject=plan.model.name)
    engine = engine_for(FORMATS[plan.model.suffix])
    session = engine.load(plan.model, EngineSettings())
    declared = _by_name(session.inputs, plan.inputs)
    tensors = tuple(_tensor(info, declared.get(info.name, FedBy())) for info in session.inputs)
    outputs = tuple(_output(info) for info in session.outputs)
    check_inputs(tensors, outputs, "inputs")
    proof = _prove(engine, session, tensors, declared, plan)
    session.close()
    outputs = tuple(may_be_infinite(one, answers) for one, answers in zip(outputs, proof.answers, strict=True))
    return _written(plan, folder, tensors, outputs, proof, engine, now)


def _by_name(inputs: Sequence[TensorInfo], given: Mapping[str, FedBy]) -> dict[str, FedBy]:
    names = [info.name for info in inputs]
    if set(given) == {ONLY}:
        if len(names) != 1:
            raise OperatorError(f"the model has {len(names)} inputs, samples for one are given", subject="samples")
        return {names[0]: given[ONLY]}
    for name in given:
        if name not in names:
            known = ", ".join(one[:80] for one in names)
            raise OperatorError(f"the model has no input {name[:80]!r}", subject="inputs", hint=f"its inputs: {known}")
    return dict(given)


def _tensor(info: TensorInfo, fed: FedBy) -> Input:
    mapping = fed.mapping
    if mapping is None:
        kind = info.dtype if fed.samples is None else fed.samples.dtype.name
        mapping = convert({"dtype": kind}, SampleMapping, what=f"samples of {info.name[:80]}")
    fields = {"name": info.name, "dtype": info.dtype, "shape": info.shape, "sample": {"dtype": info.dtype}}
    tensor = convert(fields, Input, what=f"input {info.name[:80]}")
    return replace(tensor, sample=mapping, guard=fed.guard, constant=fed.constant, feedback=fed.feedback)


def _prove(
    engine: Engine, session: Session, tensors: Sequence[Input], declared: Mapping[str, FedBy], plan: Creation
) -> _Proof:
    samples, notes = _samples(session, tensors, declared, plan)
    names = [info.name for info in session.outputs]
    runs = SampleRuns(tensors, [tensor.name for tensor in tensors], samples)
    answers, samples = _answered(session, runs, names, samples)
    kept = _affordable(plan.model, runs, samples, answers)
    samples, answers = [_first(array, kept) for array in samples], [array[:kept] for array in answers]
    runs = SampleRuns(tensors, [tensor.name for tensor in tensors], samples)
    exact = _exact(engine, plan.model, runs, names)
    if exact is None:
        notes += ("it runs with the engine's optimizations only; how other kernels differ is not known",)
    others = (runs.answers(session, names, names), *([] if exact is None else [exact]))
    error = max(golden_error(one, answers) for one in others)
    if not error <= MAX_ERROR:
        notes += (f"its answers vary from run to run by {error:.3g} of their range: golden answers prove little",)
    return _Proof(
        samples=tuple(samples),
        answers=tuple(answers),
        tolerance=max(LEAST_TOLERANCE, 2.0 * error) if error <= MAX_ERROR else ANY_TOLERANCE,
        latency_ms=_latency_ms(session, runs.feeds(0)),
        notes=notes,
    )


def _samples(
    session: Session, tensors: Sequence[Input], declared: Mapping[str, FedBy], plan: Creation
) -> tuple[list[Array], tuple[str, ...]]:
    """Return samples of every input, an empty array for those that take none, and whether they were made up."""
    given = {name: fed.samples for name, fed in declared.items() if fed.samples is not None}
    count = min((len(array) for array in given.values()), default=MAX_GOLDEN)
    if not count:
        raise OperatorError("no samples", subject="samples")
    bare = [
        info for info, tensor in zip(session.inputs, tensors, strict=True) if tensor.sampled and info.name not in given
    ]
    steps = MADE_UP_STEPS if any(tensor.feedback for tensor in tensors) else None
    if steps and given:
        steps = next(iter(given.values())).shape[1]
    sizes, generator = sizes_of(bare, plan.shapes), np.random.default_rng(0)
    made = {info.name: _made_up(info, sizes[info.name], min(count, MAX_GOLDEN), steps, generator) for info in bare}
    found = {name: array[:MAX_GOLDEN] for name, array in given.items()} | made
    notes = ("golden answers are to made-up inputs; give real ones with --samples",) if made else ()
    return [found.get(tensor.name, np.empty(0)) for tensor in tensors], notes


def _made_up(
    info: TensorInfo, sizes: tuple[int, ...], count: int, steps: int | None, generator: np.random.Generator
) -> Array:
    """Return samples of one input: without the axis for batches where that is of one, as sample sets hold them."""
    one = sizes[1:] if sizes and sizes[0] == 1 and info.shape[0] in (-1, 1) else sizes
    return made_up(info, (count, *(() if steps is None else (steps,)), *one), generator)


def _answered(
    session: Session, runs: SampleRuns, names: Sequence[str], samples: Sequence[Array]
) -> tuple[list[Array], list[Array]]:
    """Return the answers with the samples that they are to: the first alone where answers differ in shape."""
    try:
        first = runs.answer(session, 0, names, names)
    except EngineError as error:
        hint = "give samples that the model can answer with --samples, and sizes with --shape"
        raise EngineError(f"cannot answer: {str(error)[:400]}", subject="model", hint=hint) from error
    rows = [first, *(runs.answer(session, index, names, names) for index in range(1, runs.count))]
    if len({tuple(array.shape for array in row) for row in rows}) > 1:
        rows = rows[:1]
    answers = [np.stack([row[index] for row in rows]) for index in range(len(names))]
    return answers, [_first(array, len(rows)) for array in samples]


def _first(array: Array, count: int) -> Array:
    return array[:count] if array.size else array


def _affordable(model: Path, runs: SampleRuns, samples: Sequence[Array], answers: Sequence[Array]) -> int:
    """Return how many golden samples the bundle may carry."""
    each = sum(array.nbytes for array in (*samples, *answers)) / runs.count
    allowed = max(GOLDEN_BYTES, GOLDEN_SHARE * model.stat().st_size)
    return int(np.clip(allowed // max(each, 1.0), 1, min(MAX_GOLDEN, len(answers[0]))))


def _exact(engine: Engine, model: Path, runs: SampleRuns, names: Sequence[str]) -> list[Array] | None:
    """Return the answers of exact arithmetic; None where the engine has operators in its optimizations only."""
    try:
        return runs.answers(engine.load(model, EngineSettings(optimize=False)), names, names)
    except EngineError:
        return None


def _latency_ms(session: Session, feeds: Mapping[str, Array]) -> float:
    times: list[float] = []
    end = time.perf_counter() + _RUNS_S
    while len(times) < _RUNS and (len(times) < 2 or time.perf_counter() < end):
        started = time.perf_counter()
        session.run(feeds)
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


def _output(info: TensorInfo) -> Output:
    fields = {"name": info.name, "dtype": info.dtype, "shape": info.shape, "kind": "values"}
    return convert(fields, Output, what=f"output {info.name[:80]}")


def _written(
    plan: Creation, folder: Path, tensors: tuple[Input, ...], outputs: tuple[Output, ...], proof: _Proof,
    engine: Engine, now: datetime,
) -> Created:  # fmt: skip
    check_last_resort(plan.last_resort, [output.shape for output in outputs], "last_resort")
    variant = _variant(plan.model, folder, proof)
    _write_golden(folder / GOLDEN, tensors, proof)
    manifest = Manifest(
        schema=schema_for(tensors, plan.answer, (variant,)),
        name=plan.name,
        version=plan.version,
        created=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        labels=plan.labels,
        license=plan.license,
        inputs=tensors,
        outputs=outputs,
        variants=(variant,),
        golden=SampleSet(file=GOLDEN, samples=len(proof.answers[0])),
        requirements=Requirements(engines=(_floor(engine),)),
        last_resort=plan.last_resort,
        answer=plan.answer,
        lineage=Lineage(
            source_sha256=hash_file(plan.source or plan.model),
            tools={engine.name: engine.version},
            command=plan.command,
        ),
        files=tuple(file_entry(path, folder) for path in sorted(folder.rglob("*")) if path.is_file()),
    )
    (folder / MANIFEST_NAME).write_bytes(manifest_bytes(manifest))
    return Created(manifest=manifest, notes=proof.notes)


def _variant(source: Path, folder: Path, proof: _Proof) -> Variant:
    model = folder / "variants" / f"{ORIGINAL}{source.suffix}"
    model.parent.mkdir()
    shutil.copyfile(source, model)
    return Variant(
        id=ORIGINAL,
        file=model.relative_to(folder).as_posix(),
        format=FORMATS[source.suffix],
        size=model.stat().st_size,
        latency_ms=proof.latency_ms,
        tolerance=proof.tolerance,
    )


def _write_golden(path: Path, tensors: Sequence[Input], proof: _Proof) -> None:
    arrays: dict[str, Any] = {
        f"input_{index}": array for index, array in enumerate(proof.samples) if tensors[index].sampled
    }
    write_arrays(path, arrays | {f"{ORIGINAL}/output_{index}": one for index, one in enumerate(proof.answers)})


def _floor(engine: Engine) -> EngineFloor:
    """Ask for the engine and not for its version: which one brought an operator is known by no table that the base
    install has, and each device's trial says whether its own runs the model."""
    return convert({"name": engine.name, "minimum": "0"}, EngineFloor, what="engines")
