"""Making a pipeline's bundle from the bundles of its models, as a file of TOML says; see docs/how-to/pipelines.md.

Everything is checked before anything is written, and the pipeline is run on the given samples: its golden answers are
what it answered here. Running it is `pipeline`'s, trying it on a device `trial`'s.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from edge_agent.bundle import Bundle, file_entry, open_bundle
from edge_agent.inference.pipeline_engine import PipelineEngine
from edge_agent.inference.quality_metrics import score
from edge_agent.inference.sample_runs import SampleRuns
from edge_agent.inference.samples import read_arrays, write_arrays
from edge_agent.offline.compose_file import ModelSource, PipelineFile, WindowSource, read_pipeline_file
from edge_agent.offline.compose_states import past_of, with_states
from edge_agent.ports import Array, EngineSettings
from edge_agent.update.preflight import ENGINE_OF
from edge_contracts.answering import Spec
from edge_contracts.codec import convert
from edge_contracts.errors import BundleError, ContractError
from edge_contracts.manifest import (
    MANIFEST_NAME,
    EngineFloor,
    Input,
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
from edge_contracts.pipeline import (
    INPUT,
    NODES_FOLDER,
    ModelNode,
    Node,
    Pipeline,
    PipelineInput,
    WindowNode,
    check_contents,
    check_pipeline,
    pipeline_bytes,
)

GOLDEN, PROBE, FULL, LIGHT = "golden.npz", "probe.npz", "full", "light"
MAX_GOLDEN = 8
"""Samples whose answers every device must repeat, at most."""


@dataclass(frozen=True, kw_only=True)
class _Rung:
    """One pipeline of the ladder: its graph's size in bytes, and what it answered to the samples, by output."""

    id: str
    size: int
    answers: tuple[Array, ...]


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What a bundle is composed of."""

    file: PipelineFile
    bundles: Mapping[str, Bundle]
    graphs: Mapping[str, Pipeline]
    outputs: Mapping[str, Spec]
    inputs: tuple[Input, ...]
    samples: Mapping[str, Array]
    y: Array | None


def compose(path: Path, folder: Path, now: datetime) -> Manifest:
    """Write the bundle that the file `path` describes into an empty folder; return its manifest.

    The ladder has the pipeline of each model's first variant, and below it the one of their last, where they differ.
    Raises ContractError naming the field or the node that does not fit, BundleError for a node's bundle that does not
    hold, for samples that do not fit and for a pipeline that does not run, OperatorError for a file that is not there.
    """
    parts = _parts(path)
    for name, bundle in parts.bundles.items():
        _copy(bundle, folder / NODES_FOLDER / name)
    rungs = [_run(folder, rung, graph, parts) for rung, graph in parts.graphs.items()]
    golden = {f"input_{index}": array[:MAX_GOLDEN] for index, array in enumerate(parts.samples.values())}
    for rung in rungs:
        golden |= {f"{rung.id}/output_{index}": array[:MAX_GOLDEN] for index, array in enumerate(rung.answers)}
    write_arrays(folder / GOLDEN, golden)
    if parts.y is not None:
        probe = {f"input_{index}": array for index, array in enumerate(parts.samples.values())}
        write_arrays(folder / PROBE, probe | {"y": parts.y})
    manifest = _manifest(folder, parts, rungs, now)
    (folder / MANIFEST_NAME).write_bytes(manifest_bytes(manifest))
    check_contents(manifest, lambda name: (folder / name).read_bytes())
    return manifest


def _manifest(folder: Path, parts: _Parts, rungs: Sequence[_Rung], now: datetime) -> Manifest:
    file, count, inputs = parts.file, len(next(iter(parts.samples.values()))), parts.inputs
    kinds = {name: one.kind for name, one in file.outputs.items()}
    outputs = tuple(
        convert(
            {"name": name, "dtype": spec.dtype, "shape": spec.shape, "kind": kinds.get(name, "values")},
            Output,
            what=f"outputs.{name}",
        )
        for name, spec in parts.outputs.items()
    )
    entries = tuple(file_entry(one, folder) for one in sorted(folder.rglob("*")) if one.is_file())
    return Manifest(
        schema=schema_for(inputs, file.answer),
        name=file.name,
        version=file.version,
        created=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        metric=file.metric,
        labels=file.labels,
        license=file.license,
        inputs=inputs,
        outputs=outputs,
        variants=tuple(_variant(rung, parts) for rung in rungs),
        golden=SampleSet(file=GOLDEN, samples=min(count, MAX_GOLDEN)),
        probe=None if parts.y is None else SampleSet(file=PROBE, samples=count),
        requirements=_requirements([bundle.manifest for bundle in parts.bundles.values()]),
        last_resort=file.last_resort,
        answer=file.answer,
        lineage=Lineage(
            source_sha256=next(entry.sha256 for entry in entries if entry.path == f"{FULL}.json"),
            tools={name: f"{one.manifest.name} {one.manifest.version}" for name, one in parts.bundles.items()},
        ),
        files=entries,
    )


def _variant(rung: _Rung, parts: _Parts) -> Variant:
    file = parts.file
    reached = None if parts.y is None or file.metric is None else score(file.metric, rung.answers, parts.y)
    return Variant(
        id=rung.id,
        file=f"{rung.id}.json",
        format="pipeline",
        size=rung.size,
        score=reached,
        min_score=file.min_score,
        tolerance=file.tolerance,
    )


def _parts(path: Path) -> _Parts:
    file = read_pipeline_file(path)
    bundles = {
        node.name: open_bundle(path.parent / node.bundle) for node in file.nodes if isinstance(node, ModelSource)
    }
    manifests = {name: bundle.manifest for name, bundle in bundles.items()}
    graphs = {FULL: with_states(_graph(file, bundles, last=False), file, manifests)}
    if any(len(bundle.manifest.variants) > 1 for bundle in bundles.values()):
        graphs[LIGHT] = with_states(_graph(file, bundles, last=True), file, manifests)
    outputs = check_pipeline(graphs[FULL], manifests)
    states = graphs[FULL].states
    if states and file.metric is not None:
        text = "sequences are proved by their golden answers: leave metric and min_score out"
        raise ContractError(text, subject=f"{path.name} metric")
    if (file.metric is None) != (file.min_score is None):
        raise ContractError("give both metric and min_score", subject=path.name)
    check_last_resort(file.last_resort, [spec.shape for spec in outputs.values()], f"{path.name} last_resort")
    arrays = read_arrays(path.parent / file.samples, what=file.samples)
    samples = {
        name: _samples(arrays, f"input_{index}", one, file.samples, sequences=bool(states))
        for index, (name, one) in enumerate(file.inputs.items())
    }
    count = len(next(iter(samples.values())))
    y = None if file.metric is None else arrays.get("y")
    if any(len(array) != count for array in (*samples.values(), *([] if y is None else [y]))):
        raise BundleError("its arrays hold different numbers of samples", subject=file.samples)
    if file.metric is not None and y is None:
        raise BundleError("no array y for the metric", subject=file.samples)
    inputs = tuple(
        Input(
            name=name,
            dtype=one.dtype,
            shape=one.shape,
            sample=SampleMapping(dtype=one.dtype),
            feedback=states.get(name),
        )
        for name, one in graphs[FULL].inputs.items()
    )
    return _Parts(file=file, bundles=bundles, graphs=graphs, outputs=outputs, inputs=inputs, samples=samples, y=y)


def _graph(file: PipelineFile, bundles: dict[str, Bundle], *, last: bool) -> Pipeline:
    nodes: list[Node] = []
    for node in file.nodes:
        if isinstance(node, WindowSource):
            nodes.append(WindowNode(name=node.name, of=node.of, past=f"{INPUT}/{past_of(node.name)}"))
            continue
        if not isinstance(node, ModelSource):
            nodes.append(node)
            continue
        bundle = bundles[node.name]
        variant = bundle.manifest.variants[-1].id if last else None
        fields = {name: getattr(node, name) for name in ("name", "inputs", "rows", "deadline_ms")}
        nodes.append(ModelNode(manifest_sha256=bundle.manifest_sha256, variant=variant, **fields))
    return Pipeline(
        inputs=file.inputs, nodes=tuple(nodes), outputs={name: one.of for name, one in file.outputs.items()}
    )


def _copy(bundle: Bundle, folder: Path) -> None:
    """Copy what a bundle's manifest lists, and the manifest."""
    for name in (MANIFEST_NAME, *(entry.path for entry in bundle.manifest.files)):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.folder / name, target)


def _samples(arrays: Mapping[str, Array], name: str, wanted: PipelineInput, what: str, *, sequences: bool) -> Array:
    found, axes = arrays.get(name), len(wanted.shape) + sequences
    if found is None or found.dtype != wanted.dtype or found.ndim != axes or not found.size:
        kind = "of sequences of samples [N, T, ...]" if sequences else "of samples"
        text = f"asked for is an array {name} {kind}, {wanted.dtype} {list(wanted.shape)}"
        raise BundleError(text, subject=what)
    return found


def _run(folder: Path, rung: str, graph: Pipeline, parts: _Parts) -> _Rung:
    """Write a pipeline's file and run it on every sample."""
    path, data = folder / f"{rung}.json", pipeline_bytes(graph)
    path.write_bytes(data)
    session = PipelineEngine().load(path, EngineSettings())
    names = list(parts.outputs)
    nothing: Array = np.empty(0)
    try:
        samples = [parts.samples.get(tensor.name, nothing) for tensor in parts.inputs]
        runs = SampleRuns(parts.inputs, [tensor.name for tensor in parts.inputs], samples)
        answers = tuple(runs.answers(session, names, names))
    finally:
        session.close()
    return _Rung(id=rung, size=len(data), answers=answers)


def _requirements(manifests: Sequence[Manifest]) -> Requirements:
    """Return what all models together need. Raises ContractError if no architecture suits all of them."""
    minimum: dict[str, str] = {}
    architectures: set[str] | None = None
    for manifest in manifests:
        needs = manifest.requirements
        engines: list[tuple[str, str]] = [(one.name, one.minimum) for one in needs.engines]
        engines = engines or [(ENGINE_OF[one.format], "0") for one in manifest.variants]
        for name, version in engines:
            minimum[name] = max(minimum.get(name, "0"), version, key=_numbers)
        if needs.architectures:
            own = set(needs.architectures)
            architectures = own if architectures is None else architectures & own
    if architectures is not None and not architectures:
        raise ContractError("no architecture is supported by all models", subject="nodes")
    return Requirements(
        engines=tuple(
            convert({"name": name, "minimum": one}, EngineFloor, what="engines") for name, one in minimum.items()
        ),
        architectures=tuple(sorted(architectures or ())),
        operators=tuple(sorted({name for manifest in manifests for name in manifest.requirements.operators})),
        memory_mb=sum(manifest.requirements.memory_mb for manifest in manifests),
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
