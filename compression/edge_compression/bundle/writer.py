"""BundleWriter the bundle: variants, recipes, sample sets, report and the manifest that pins them all.

Here: files and the manifest's records. What the sets and thresholds are is in `sets`; signing is the fleet's work.
"""

from __future__ import annotations

import datetime
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle import file_entry, hash_file
from edge_agent.inference.quality_metrics import score
from edge_agent.inference.samples import write_arrays
from edge_bench.task import Task
from edge_compression.bundle import histograms, sample_sets
from edge_compression.bundle.answer_statistics import calibrating, statistics
from edge_compression.bundle.engine_floor import LITERT_FLOOR, onnxruntime_floor
from edge_compression.bundle.folder import check_free as check_free
from edge_compression.bundle.folder import fresh_folder as fresh_folder
from edge_compression.evaluation.candidate import Candidate
from edge_compression.guards import output_guard
from edge_compression.passes import Float16
from edge_compression.report.model import Report
from edge_compression.search.finalists import SearchResult
from edge_contracts.codec import plain
from edge_contracts.guards import OutputGuard
from edge_contracts.manifest import (
    MANIFEST_NAME,
    Budgets,
    EngineFloor,
    Lineage,
    Manifest,
    Output,
    Requirements,
    SampleSet,
    Variant,
    manifest_bytes,
    schema_for,
)
from edge_contracts.profile import DeviceProfile

Array = NDArray[Any]
GOLDEN, PROBE, REPORT = "golden.npz", "probe.npz", "report.json"


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
    probe = sample_sets.stratified(found.y, sample_sets.probe_count(found.x), by_class=task.file.metric == "top1")
    write_arrays(folder / PROBE, {"input_0": found.x[probe], "y": found.y[probe]})
    outputs, golden_count = _write_golden(folder, writing, rungs)
    variants = tuple(_write_variant(folder, writing, one, probe) for one in rungs)
    (folder / REPORT).write_text(json.dumps(plain(writing.report), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    manifest = Manifest(
        schema=schema_for((found.tensor,), task.file.answer),
        name=writing.report.name,
        version=writing.report.version,
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        metric=task.file.metric,
        labels=task.file.labels,
        license=task.file.license,
        inputs=(found.tensor,),
        outputs=outputs,
        variants=variants,
        golden=SampleSet(file=GOLDEN, samples=golden_count),
        probe=SampleSet(file=PROBE, samples=probe.size),
        report=REPORT,
        requirements=_requirements(found, rungs),
        budgets=_budgets(writing.profile),
        reference=histograms.inputs(found.x, found.tensor),
        last_resort=task.file.last_resort,
        answer=task.file.answer,
        lineage=_lineage(writing),
        files=tuple(file_entry(path, folder) for path in sorted(folder.rglob("*")) if path.is_file()),
    )
    (folder / MANIFEST_NAME).write_bytes(manifest_bytes(manifest))
    return manifest


def _write_golden(folder: Path, writing: BundleWriter, rungs: list[Candidate]) -> tuple[tuple[Output, ...], int]:
    """Write the golden set with every rung's answers; return the model's outputs and the number of samples."""
    found, metric = writing.found, writing.task.file.metric
    chosen = sample_sets.stratified(found.y, sample_sets.golden_count(found.x), by_class=metric == "top1")
    arrays: dict[str, Array] = {"input_0": found.x[chosen]}
    for one in rungs:
        for index, answers in enumerate(one.outputs):
            arrays[f"{one.id}/output_{index}"] = answers[chosen]
    write_arrays(folder / GOLDEN, arrays)
    kind = sample_sets.output_kind(found.answers, metric)
    outputs = []
    for index, info in enumerate(found.opened.outputs):
        own = kind if index == 0 else "values"
        guard = output_guard(writing.task.file.guard.output, kind) if index == 0 else OutputGuard()
        dtype = arrays[f"{rungs[-1].id}/output_{index}"].dtype.name
        outputs.append(
            Output(name=info.name, dtype=dtype, shape=info.shape, kind=own, guard=guard)  # type: ignore[arg-type]
        )
    return tuple(outputs), chosen.size


def _write_variant(folder: Path, writing: BundleWriter, one: Candidate, probe: NDArray[np.intp]) -> Variant:
    assert one.quality is not None
    assert one.exactness is not None
    assert one.measured is not None
    assert one.calibration is not None
    metric, found = writing.task.file.metric, writing.found
    model = folder / "variants" / f"{one.id}.{one.recipe.format}"
    recipe = folder / "recipes" / f"{one.id}.toml"
    for path in (model, recipe):
        path.parent.mkdir(exist_ok=True)
    shutil.copyfile(one.model, model)
    recipe.write_text(one.recipe.text, encoding="utf-8")
    kind = sample_sets.output_kind(found.answers, metric)
    said = statistics(
        one.outputs[0],
        found.y,
        kind,
        calibrate=calibrating(found.y.shape[0], found.confirming),
        model_sha256=one.sha256,
    )
    probe_score = score(metric, [one.outputs[0][probe]], found.y[probe])
    return Variant(
        id=one.id,
        file=model.relative_to(folder).as_posix(),
        format=one.recipe.format,
        recipe=recipe.relative_to(folder).as_posix(),
        size=one.size,
        score=one.quality.score,
        min_score=sample_sets.score_floor(metric, probe_score, probe.size, one.exactness),
        drop=one.quality.drop,
        agreement=one.quality.agreement,
        latency_ms=one.measured.latency.p50,
        peak_memory_mb=one.measured.loaded.peak_memory_mb,
        tolerance=sample_sets.tolerance(one.exactness, least=_least_tolerance(one)),
        confidence=sample_sets.confidence(one.calibration, kind),
        conformal=said.conformal,
        reference=said.reference,
    )


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
        data_sha256=hash_file(writing.task.data),
        host=f"{machine.cpu}, {machine.architecture}",
        tools={"python": machine.python, **machine.versions},
        command=writing.report.command,
    )
