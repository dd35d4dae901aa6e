"""BundleWriter the bundle: variants, recipes, sample sets, report and the manifest that pins them all.

Here: files and the manifest's records. What the sets and thresholds are is in `sets`; signing is the fleet's work.
"""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle import file_entry, hash_file
from edge_agent.inference.guards import may_be_infinite
from edge_agent.inference.quality_metrics import relative_error, score
from edge_agent.inference.samples import write_arrays
from edge_bench.task import Task
from edge_compression.bundle import histograms, sample_sets
from edge_compression.bundle.answer_statistics import calibrating, statistics
from edge_compression.bundle.engine_floor import LITERT_FLOOR, onnxruntime_floor
from edge_compression.bundle.folder import check_free as check_free
from edge_compression.bundle.folder import fresh_folder as fresh_folder
from edge_compression.evaluation.candidate import Candidate
from edge_compression.guards import OutputKind, output_guard
from edge_compression.passes import Float16
from edge_compression.report.model import Report, travelling
from edge_compression.search.cache_keys import samples_digest
from edge_compression.search.finalists import SearchResult
from edge_contracts.codec import plain
from edge_contracts.guards import OutputGuard
from edge_contracts.manifest import (
    MANIFEST_NAME,
    Budgets,
    EngineFloor,
    Judged,
    Lineage,
    Manifest,
    Output,
    OutputFloor,
    Requirements,
    SampleSet,
    Variant,
    manifest_bytes,
    schema_for,
)
from edge_contracts.profile import DeviceProfile
from edge_contracts.reference import InputReference

Array = NDArray[Any]
GOLDEN, PROBE, REPORT = "golden.npz", "probe.npz", "report.json"
PACKED = sample_sets.PACKED_SAMPLES

REFERENCE_STEPS = 5000
"""Steps of sequences that the reference histograms are made of."""


@dataclass(frozen=True, kw_only=True)
class BundleWriter:
    """Everything the bundle is made from."""

    task: Task
    profile: DeviceProfile
    found: SearchResult
    report: Report


def write_bundle(folder: Path, writing: BundleWriter) -> Manifest:
    """Write the bundle into an empty folder and return its manifest. Raises RunnerError, ContractError."""
    found, task = writing.found, writing.task
    rungs = [next(one for one in found.candidates if one.id == name) for name in found.ladder.rungs]
    allowed = sample_sets.allowed_bytes(sum(one.size for one in rungs))
    golden = _write_golden(folder, writing, rungs, allowed)
    probe = _write_probe(folder, writing, allowed - (folder / GOLDEN).stat().st_size)
    variants = tuple(_write_variant(folder, writing, one, _Sets(probe=probe, golden=golden)) for one in rungs)
    travels = json.dumps(plain(travelling(writing.report)), separators=(",", ":"), sort_keys=True)
    (folder / REPORT).write_text(travels + "\n", encoding="utf-8")
    manifest = Manifest(
        schema=schema_for(found.tensors, task.file.answer, variants),
        name=writing.report.name,
        version=writing.report.version,
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        metric=task.metric if found.classic else None,
        judged=tuple(
            Judged(output=one.output, metric=one.metric, original=one.original) for one in writing.report.judged
        ),
        labels=task.file.labels,
        license=task.file.license,
        inputs=found.tensors,
        outputs=_outputs(writing, rungs[-1]),
        variants=variants,
        golden=SampleSet(file=GOLDEN, samples=golden.size),
        probe=None if probe is None else SampleSet(file=PROBE, samples=probe.size),
        report=REPORT,
        requirements=_requirements(found, rungs),
        budgets=_budgets(writing.profile),
        reference=_input_reference(writing),
        last_resort=task.file.last_resort,
        answer=task.file.answer,
        lineage=_lineage(writing),
        files=tuple(file_entry(path, folder) for path in sorted(folder.rglob("*")) if path.is_file()),
    )
    (folder / MANIFEST_NAME).write_bytes(manifest_bytes(manifest))
    return manifest


@dataclass(frozen=True, kw_only=True)
class _Sets:
    """Which evaluation samples are probes, where a device judges by them, and which are golden."""

    probe: NDArray[np.intp] | None
    golden: NDArray[np.intp]


def _write_probe(folder: Path, writing: BundleWriter, allowed: int) -> NDArray[np.intp] | None:
    """Write the labeled samples that every device judges a release by, of `allowed` bytes if the least number of them
    fits; none where it does not know the metric."""
    found = writing.found
    if not found.classic:
        return None
    by_class = writing.task.metric == "top1"
    each = sample_sets.packed_bytes(_inputs(writing, np.arange(min(len(found.y), PACKED))).values())
    probe = sample_sets.stratified(found.y, sample_sets.probe_count(each, allowed), by_class=by_class)
    y = found.y[probe]
    if writing.task.sequences:
        y = y[:, : sample_sets.STEPS]
    write_arrays(folder / PROBE, {**_inputs(writing, probe), "y": y})
    return probe


def _inputs(writing: BundleWriter, chosen: NDArray[np.intp]) -> dict[str, Array]:
    """Return the samples of each input, sequences cut to their first steps."""
    return {
        f"input_{index}": _cut(writing, samples[chosen])
        for index, samples in enumerate(writing.found.samples)
        if samples is not None
    }


def _cut(writing: BundleWriter, samples: Array) -> Array:
    """Return sequences cut to their first steps: what follows a step does not change its answer."""
    return samples[:, : sample_sets.STEPS] if writing.task.sequences else samples


def _write_golden(folder: Path, writing: BundleWriter, rungs: list[Candidate], allowed: int) -> NDArray[np.intp]:
    """Write the golden set with the original's answers and every rung's; return the samples that are in it."""
    found = writing.found
    first = np.arange(min(len(found.y), PACKED))
    answers = sample_sets.packed_bytes(_cut(writing, one[first]) for one in found.outputs) * (len(rungs) + 1)
    each = sample_sets.packed_bytes(_inputs(writing, first).values()) + answers
    by_class = found.classic and writing.task.metric == "top1"
    chosen = sample_sets.stratified(found.y, sample_sets.golden_count(each, allowed), by_class=by_class)
    arrays = _inputs(writing, chosen)
    for index, given in enumerate(found.outputs):
        arrays[f"_original/output_{index}"] = _cut(writing, given[chosen])
    for one in rungs:
        for index, own in enumerate(one.outputs):
            arrays[f"{one.id}/output_{index}"] = _cut(writing, own[chosen])
    write_arrays(folder / GOLDEN, arrays)
    return chosen


def _outputs(writing: BundleWriter, last: Candidate) -> tuple[Output, ...]:
    """Return the manifest's records of the model's outputs."""
    found = writing.found
    kind = _kind(found)
    made = []
    for index, info in enumerate(found.opened.outputs):
        own = kind if index == 0 else "values"
        guard = output_guard(writing.task.file.guard.output, kind) if index == 0 else OutputGuard()
        dtype = last.outputs[index].dtype.name
        output = Output(name=info.name, dtype=dtype, shape=info.shape, kind=own, guard=guard)  # type: ignore[arg-type]
        made.append(may_be_infinite(output, found.outputs[index]))
    return tuple(made)


def _kind(found: SearchResult) -> OutputKind:
    return sample_sets.output_kind(found.outputs[0], found.jury.judged[0].metric.name) if found.classic else "values"


def _input_reference(writing: BundleWriter) -> InputReference | None:
    """Return the reference of the first input that samples are fed to, step by step where they are sequences."""
    found, task = writing.found, writing.task
    index = next(i for i, one in enumerate(found.samples) if one is not None)
    x = found.x.reshape(-1, *found.x.shape[2:]) if task.sequences else found.x
    tensor = found.tensors[index]
    if x.ndim != len(tensor.sample_shape):
        return None  # without an axis for batches a device counts each request otherwise
    return histograms.inputs(x[:REFERENCE_STEPS] if task.sequences else x, tensor)


def _write_variant(folder: Path, writing: BundleWriter, one: Candidate, sets: _Sets) -> Variant:
    assert one.quality is not None
    assert one.exactness is not None
    assert one.measured is not None
    model = folder / "variants" / f"{one.id}.{one.recipe.format}"
    recipe = folder / "recipes" / f"{one.id}.toml"
    for path in (model, recipe):
        path.parent.mkdir(exist_ok=True)
    shutil.copyfile(one.model, model)
    recipe.write_text(one.recipe.text, encoding="utf-8")
    return Variant(
        id=one.id,
        file=model.relative_to(folder).as_posix(),
        format=one.recipe.format,
        recipe=recipe.relative_to(folder).as_posix(),
        size=one.size,
        score=one.quality.score,
        drop=one.quality.drop,
        agreement=one.quality.agreement,
        latency_ms=one.measured.latency.p50,
        peak_memory_mb=one.measured.loaded.peak_memory_mb,
        tolerance=sample_sets.tolerance(one.exactness, least=_least_tolerance(one)),
        score_maps=one.score_maps,
        floors=tuple(_floors(writing, one, sets.golden)),
        judged=tuple(output.score for output in one.quality.outputs),
        **_proof(writing, one, sets.probe),
    )


def _proof(writing: BundleWriter, one: Candidate, probe: NDArray[np.intp] | None) -> dict[str, Any]:
    """Return what a device judges a variant by besides golden answers: a floor of its metric and statistics."""
    found = writing.found
    if probe is None or one.calibration is None or one.exactness is None:
        plain_answers = not writing.task.sequences and one.outputs[0].dtype.kind == "f"
        known = plain_answers and bool(np.isfinite(one.outputs[0]).all())
        return {"reference": histograms.value_answers(one.outputs[0], one.sha256) if known else None}
    metric, kind = writing.task.metric, _kind(found)
    said = statistics(
        one.outputs[0],
        found.y,
        kind,
        calibrate=calibrating(found.y.shape[0], found.confirming),
        model_sha256=one.sha256,
    )
    answers, y = one.outputs[0][probe], found.y[probe]
    if writing.task.sequences:
        answers, y = _cut(writing, answers), y[:, : sample_sets.STEPS]
    probe_score = score(metric, [answers], y)
    least = _least_tolerance(one) * float(np.ptp(answers[np.isfinite(answers)], axis=None)) if answers.size else 0.0
    return {
        "min_score": sample_sets.score_floor(metric, probe_score, probe.size, one.exactness, least=least),
        "confidence": sample_sets.confidence(one.calibration, kind),
        "conformal": said.conformal,
        "reference": said.reference,
    }


def _floors(writing: BundleWriter, one: Candidate, golden: NDArray[np.intp]) -> Iterator[OutputFloor]:
    """Say how far from the original each output may be on a device: as far as here on the golden samples, and what
    other kernels add. States that are fed back are known by what is made of them."""
    found = writing.found
    fed_back = {tensor.feedback for tensor in found.tensors}
    for info, own, given in zip(found.opened.outputs, one.outputs, found.outputs, strict=True):
        error = relative_error(_cut(writing, own[golden]), _cut(writing, given[golden]))
        if info.name not in fed_back and np.isfinite(error):
            yield OutputFloor(output=info.name, relative_error=sample_sets.output_floor(error, _least_tolerance(one)))


def _least_tolerance(one: Candidate) -> float:
    if one.recipe.eight_bit:
        return sample_sets.INTEGER_TOLERANCE
    half = any(isinstance(step, Float16) for step in one.recipe.passes)
    return sample_sets.HALF_TOLERANCE if half else sample_sets.FLOAT_TOLERANCE


def _requirements(found: SearchResult, rungs: list[Candidate]) -> Requirements:
    # The lightest rung is what a device must be able to hold; its trial drops the rungs that do not fit.
    memory = min(one.measured.loaded.peak_memory_mb for one in rungs if one.measured is not None)
    if rungs[0].recipe.format == "tflite":
        return Requirements(engines=(EngineFloor(name="litert", minimum=LITERT_FLOOR),), memory_mb=memory)
    from edge_compression.onnx_tools.graph import load, operators

    models = [load(one.model.read_bytes()) for one in rungs]
    floor = onnxruntime_floor(models, found.timing.loaded.engine_version)
    return Requirements(
        engines=(EngineFloor(name="onnxruntime", minimum=floor),),
        operators=tuple(sorted({name for model in models for name in operators(model)})),
        memory_mb=memory,
    )


def _budgets(profile: DeviceProfile) -> Budgets:
    model = profile.model
    return Budgets(latency_ms=model.latency_ms, memory_mb=model.memory_mb, load_s=model.load_s)


def _lineage(writing: BundleWriter) -> Lineage:
    machine = writing.report.environment
    return Lineage(
        source_sha256=hash_file(writing.task.source or writing.task.model),
        data_sha256=samples_digest(writing.task),
        host=f"{machine.cpu}, {machine.architecture}",
        tools={"python": machine.python, **machine.versions},
        command=writing.report.command,
    )
