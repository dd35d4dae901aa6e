"""The bundle manifest: everything a device needs to know about a release, and the root of its Merkle tree.

The manifest pins every file by SHA-256 and every file pins its chunks, so one signed hash covers all bytes and any
carrier may deliver them in any order. How a bundle is made is in `edge_compression`, how it is signed in
`edge_fleet`, how it is tried and served in `edge_agent`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Annotated, Literal

from msgspec import Meta

from edge_contracts import limits
from edge_contracts.answering import AnswerStep, AnswerSteps, Ctc, Nms, Over, Spec, given, outputs_after
from edge_contracts.codec import Record, StrictRecord, decode, encode
from edge_contracts.errors import ContractError
from edge_contracts.guards import GuardAction as GuardAction
from edge_contracts.guards import InputGuard as InputGuard
from edge_contracts.guards import OutputGuard as OutputGuard
from edge_contracts.guards import check_input_guard, check_output_guard
from edge_contracts.names import Name, RelativePath, Sha256, Text, UtcTime, Version, check_path
from edge_contracts.reference import (
    AnswerReference,
    Confidence,
    ConformalThreshold,
    InputReference,
    check_inputs,
    check_variant,
)
from edge_contracts.tensors import DType as DType
from edge_contracts.tensors import Input as Input
from edge_contracts.tensors import Output as Output
from edge_contracts.tensors import SampleMapping as SampleMapping
from edge_contracts.tensors import check_inputs as check_tensors
from edge_contracts.tensors import check_sample

MANIFEST_SCHEMA = 1
PROCESSING_SCHEMA = 2
"""Of a manifest with steps: an agent from before there were any must refuse it, and not leave them out."""

FEATURES_SCHEMA = 3
"""Of a manifest with guards of features, for the same reason."""

STATE_SCHEMA = 4
"""Of a manifest with constants, states, text out of a recognizer or mapped scores, for the same reason."""

MANIFEST_NAME = "manifest.json"

Format = Literal["onnx", "tflite", "pipeline"]
Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]


class FileEntry(Record, frozen=True, kw_only=True):
    """One file of the bundle; `chunks` are the SHA-256 of its consecutive pieces of `Manifest.chunk_size` bytes."""

    path: RelativePath
    size: Count
    sha256: Sha256
    chunks: tuple[Sha256, ...]


class ScoreMap(StrictRecord, frozen=True, kw_only=True):
    """How scores of a variant become scores as the original gives them, so that a threshold that was chosen for the
    original finds the same: straight lines between the points (`own`, `original`), both rising. `of` names the scores
    that a step `nms` or `over` reads."""

    of: Text
    own: Annotated[tuple[float, ...], Meta(min_length=2, max_length=limits.MAX_KNOTS)]
    original: Annotated[tuple[float, ...], Meta(min_length=2, max_length=limits.MAX_KNOTS)]


class OutputFloor(Record, frozen=True, kw_only=True):
    """The largest relative error of an output against the original's answers to the golden samples; see
    `edge_agent.inference.quality_metrics.relative_error`. A device's proof is against the original, not against the
    variant itself alone: a wreck proves nothing by answering as it did where it was made."""

    output: Text
    relative_error: Positive


class Variant(Record, frozen=True, kw_only=True):
    """One rung of the ladder: a model file with what was measured of it where it was made.

    `score` is the first metric on the evaluation set, higher is better; `drop` what is lost against the original, in
    the unit of the output that decides; `judged` the score for each of the manifest's `judged`, as people know it.
    `min_score` is the floor the probe set must reach on every device. `tolerance` is the largest difference from the
    golden outputs, relative to their range. `latency_ms` is the median, `peak_memory_mb` the growth of a process that
    loads and runs it. None means it was not measured.
    """

    id: Name
    file: RelativePath
    format: Format
    recipe: RelativePath | None = None
    size: Count
    score: float | None = None
    min_score: float | None = None
    drop: float | None = None
    agreement: Share | None = None
    latency_ms: Positive | None = None
    peak_memory_mb: Positive | None = None
    tolerance: Positive = 1e-3
    confidence: Confidence = Confidence()
    conformal: Annotated[tuple[ConformalThreshold, ...], Meta(max_length=limits.MAX_THRESHOLDS)] = ()
    reference: AnswerReference | None = None
    score_maps: Annotated[tuple[ScoreMap, ...], Meta(max_length=limits.MAX_STEPS)] = ()
    floors: Annotated[tuple[OutputFloor, ...], Meta(max_length=limits.MAX_TENSORS)] = ()
    judged: Annotated[tuple[float | None, ...], Meta(max_length=limits.MAX_TENSORS)] = ()


class SampleSet(Record, frozen=True, kw_only=True):
    """A file of samples in NumPy's .npz format. `input_<i>` holds the samples of input i, in its `sample.dtype`.

    Golden sets add `<variant id>/output_<j>`, the outputs seen where the bundle was made, and `_original/output_<j>`,
    those of the model that was compressed; probe sets add `y`, the labels or target values. Inputs that are constant
    or fed back have no samples; beside those fed back a sample is a sequence of steps, answered by as many.
    """

    file: RelativePath
    samples: Annotated[int, Meta(ge=1)]


class EngineFloor(Record, frozen=True, kw_only=True):
    """An engine that can run at least one variant. `minimum` is the oldest version worth asking: the first whose
    operator sets cover the variants as published by the engine, else the version the bundle was made with."""

    name: Literal["onnxruntime", "litert"]
    minimum: Text


class Requirements(Record, frozen=True, kw_only=True):
    """What a device must have before the first byte is fetched. Empty means anything will do."""

    engines: tuple[EngineFloor, ...] = ()
    architectures: tuple[Text, ...] = ()
    operators: tuple[Text, ...] = ()
    memory_mb: Annotated[float, Meta(ge=0.0)] = 0.0


class Budgets(Record, frozen=True, kw_only=True):
    """What a variant may cost on the device; the device's profile may be stricter. None means no bound."""

    latency_ms: Positive | None = None
    memory_mb: Positive | None = None
    load_s: Positive | None = None


class LastResort(StrictRecord, frozen=True, kw_only=True):
    """What to answer when no model can: nothing, the last good answer while it is fresh, or fixed output values."""

    kind: Literal["abstain", "last_value", "constant"] = "abstain"
    values: tuple[float, ...] = ()
    fresh_s: Positive = 60.0


class Lineage(Record, frozen=True, kw_only=True):
    """Where the bundle comes from, so that any rung can be traced to a model, its data and the tools that made it."""

    source_sha256: Sha256
    data_sha256: Sha256 | None = None
    host: Text = ""
    tools: dict[str, str] = {}
    command: Text = ""
    parent: Text | None = None


class Judged(Record, frozen=True, kw_only=True):
    """What a variant was judged by: the metric of one output, or of what an answer step makes, with the original's
    score. A device proves variants by golden answers, floors and `Manifest.metric`."""

    output: Text
    metric: Text
    original: float | None = None


class Manifest(Record, frozen=True, kw_only=True):
    """A release. `variants` is the ladder: preferred first, each later rung a fallback."""

    schema: Annotated[int, Meta(ge=1)] = MANIFEST_SCHEMA
    name: Name
    version: Version
    created: UtcTime
    metric: Text | None = None
    judged: Annotated[tuple[Judged, ...], Meta(max_length=limits.MAX_TENSORS)] = ()
    labels: Annotated[tuple[Text, ...], Meta(max_length=limits.MAX_LABELS)] = ()
    license: Text = ""
    inputs: Annotated[tuple[Input, ...], Meta(min_length=1, max_length=limits.MAX_TENSORS)]
    outputs: Annotated[tuple[Output, ...], Meta(min_length=1, max_length=limits.MAX_TENSORS)]
    variants: Annotated[tuple[Variant, ...], Meta(min_length=1, max_length=limits.MAX_VARIANTS)]
    golden: SampleSet | None = None
    probe: SampleSet | None = None
    report: RelativePath | None = None
    requirements: Requirements = Requirements()
    budgets: Budgets = Budgets()
    last_resort: LastResort = LastResort()
    reference: InputReference | None = None
    answer: AnswerSteps = ()
    lineage: Lineage
    chunk_size: Annotated[int, Meta(ge=1024, le=limits.MAX_CHUNK_BYTES)] = limits.CHUNK_BYTES
    files: Annotated[tuple[FileEntry, ...], Meta(min_length=1, max_length=limits.MAX_FILES)]

    def file(self, path: str) -> FileEntry:
        """Return the entry of `path`. Raises ContractError if the bundle has no such file."""
        for entry in self.files:
            if entry.path == path:
                return entry
        raise ContractError("not listed in files", subject=f"manifest.files[{path}]")

    def variant(self, variant_id: str) -> Variant:
        """Return the rung of that id. Raises ContractError if there is none."""
        for variant in self.variants:
            if variant.id == variant_id:
                return variant
        raise ContractError("no such variant", subject=f"manifest.variants[{variant_id}]")

    @property
    def answers(self) -> dict[str, Spec]:
        """What an answer may hold, by name: the model's outputs and what the steps of `answer` add.

        Raises ContractError naming a step that does not fit."""
        outputs = {tensor.name: Spec(dtype=tensor.dtype, shape=tensor.shape) for tensor in self.outputs}
        return outputs_after(outputs, self.answer, "manifest.answer")

    @property
    def given(self) -> tuple[str, ...]:
        """The names of what an answer holds unless it is asked for something else."""
        return given(list(self.answers), self.answer)

    @property
    def total_bytes(self) -> int:
        """Sum of the sizes of all files, in bytes."""
        return sum(entry.size for entry in self.files)


def schema_for(inputs: Sequence[Input], answer: Sequence[AnswerStep], variants: Sequence[Variant] = ()) -> int:
    """Return the schema of a manifest with these inputs, these steps behind its model and these variants."""
    known = all(tensor.sampled for tensor in inputs) and not any(variant.score_maps for variant in variants)
    if not known or any(isinstance(step, Ctc | Over) for step in answer):
        return STATE_SCHEMA
    if any(tensor.guard.features for tensor in inputs):
        return FEATURES_SCHEMA
    return PROCESSING_SCHEMA if answer or any(tensor.sample.steps for tensor in inputs) else MANIFEST_SCHEMA


def parse_manifest(data: bytes) -> Manifest:
    """Parse and check a manifest. Raises ContractError naming the field."""
    manifest = decode(data, Manifest, limit=limits.MAX_MANIFEST_BYTES, what="manifest")
    check_manifest(manifest)
    return manifest


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return the canonical bytes that are hashed and signed. Raises ContractError if a device would not accept them:
    a value made in Python is checked only here, by parsing what it became."""
    data = encode(manifest)
    parse_manifest(data)
    return data


def check_last_resort(resort: LastResort, shapes: Iterable[Sequence[int]], what: str) -> None:
    """Check that a last resort has the values of one sample's answer, to a model with outputs [batch, ...] of these
    shapes. Who declares it is told; a device with others abstains. Raises ContractError naming the field."""
    numbers = sum(math.prod(max(size, 1) for size in shape[1:]) for shape in shapes)
    wanted = numbers if resort.kind == "constant" else 0
    if len(resort.values) != wanted:
        text = f"{len(resort.values)} values, {wanted} are the answer to one sample"
        raise ContractError(text if wanted else f"{resort.kind} takes none", subject=f"{what}.values")


def check_manifest(manifest: Manifest) -> None:
    """Check what types alone cannot: paths, uniqueness, references, chunk counts, totals. Raises ContractError."""
    if manifest.schema not in (MANIFEST_SCHEMA, PROCESSING_SCHEMA, FEATURES_SCHEMA, STATE_SCHEMA):
        raise ContractError(f"schema {manifest.schema} is not known here", subject="manifest.schema")
    if manifest.schema != schema_for(manifest.inputs, manifest.answer, manifest.variants):
        what = "a manifest with states, constants or text has schema 4, with guards of features 3, with steps 2, else 1"
        raise ContractError(what, subject="manifest.schema")
    paths = [entry.path for entry in manifest.files]
    known = set(paths)
    _check_unique(paths, "manifest.files")
    _check_unique([variant.id for variant in manifest.variants], "manifest.variants")
    _check_unique([tensor.name for tensor in manifest.inputs], "manifest.inputs")
    _check_unique([tensor.name for tensor in manifest.outputs], "manifest.outputs")
    for index, entry in enumerate(manifest.files):
        _check_file(entry, manifest.chunk_size, known, f"manifest.files[{index}]")
    if manifest.total_bytes > limits.MAX_BUNDLE_BYTES:
        raise ContractError(f"{manifest.total_bytes} bytes, over {limits.MAX_BUNDLE_BYTES}", subject="manifest.files")
    for what, path in _references(manifest):
        if path not in known:
            raise ContractError(f"{path[:80]!r} is not listed in files", subject=what)
    for index, tensor in enumerate(manifest.inputs):
        check_sample(tensor, f"manifest.inputs[{index}].sample")
        check_input_guard(tensor.guard, tensor.shape, f"manifest.inputs[{index}].guard")
    for index, output in enumerate(manifest.outputs):
        check_output_guard(output.guard, f"manifest.outputs[{index}].guard")
    check_tensors(manifest.inputs, manifest.outputs, "manifest.inputs")
    _check_answer(manifest)
    _check_statistics(manifest)


def _check_answer(manifest: Manifest) -> None:
    names = [tensor.name for tensor in manifest.inputs]
    _ = manifest.answers
    for index, step in enumerate(manifest.answer):
        if isinstance(step, Nms) and (step.input or names[0]) not in names:
            raise ContractError("no such input", subject=f"manifest.answer[{index}].input")
    read = {name for step in manifest.answer if isinstance(step, Nms | Over) for name in scores_of(step)}
    outputs = {tensor.name for tensor in manifest.outputs}
    for index, variant in enumerate(manifest.variants):
        for number, one in enumerate(variant.score_maps):
            _check_map(one, read, f"manifest.variants[{index}].score_maps[{number}]")
        for number, floor in enumerate(variant.floors):
            if floor.output not in outputs:
                raise ContractError("no such output", subject=f"manifest.variants[{index}].floors[{number}].output")


def _check_map(one: ScoreMap, read: set[str], what: str) -> None:
    if one.of not in read:
        raise ContractError(f"no step reads scores {one.of[:80]!r}", subject=f"{what}.of")
    if len(one.own) != len(one.original):
        raise ContractError(f"{len(one.own)} points for {len(one.original)}", subject=what)
    for points in (one.own, one.original):
        if not all(map(math.isfinite, points)) or any(low >= high for low, high in pairwise(points)):
            raise ContractError("points are numbers and rise", subject=what)


def scores_of(step: Nms | Over) -> tuple[str, ...]:
    """Return the scores that a step compares with a threshold."""
    return (step.scores,) if isinstance(step, Nms) else (step.of,)


def _check_statistics(manifest: Manifest) -> None:
    if manifest.reference is not None:
        check_inputs(manifest.reference, {tensor.name for tensor in manifest.inputs}, "manifest.reference")
    for index, variant in enumerate(manifest.variants):
        sha256, what = manifest.file(variant.file).sha256, f"manifest.variants[{index}]"
        check_variant(variant.conformal, variant.reference, sha256, what)


def _references(manifest: Manifest) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for index, variant in enumerate(manifest.variants):
        found.append((f"manifest.variants[{index}].file", variant.file))
        if variant.recipe is not None:
            found.append((f"manifest.variants[{index}].recipe", variant.recipe))
    for name, samples in (("golden", manifest.golden), ("probe", manifest.probe)):
        if samples is not None:
            found.append((f"manifest.{name}.file", samples.file))
    if manifest.report is not None:
        found.append(("manifest.report", manifest.report))
    return found


def _check_file(entry: FileEntry, chunk_size: int, files: set[str], what: str) -> None:
    check_path(entry.path, what=f"{what}.path")
    if any(str(folder) in files or str(folder) == MANIFEST_NAME for folder in PurePosixPath(entry.path).parents):
        raise ContractError("lies below a file", subject=f"{what}.path")
    if entry.path == MANIFEST_NAME:
        raise ContractError("the manifest cannot list itself", subject=f"{what}.path")
    expected = -(-entry.size // chunk_size)
    if len(entry.chunks) != expected:
        raise ContractError(f"{len(entry.chunks)} chunks for {entry.size} bytes, not {expected}", subject=what)


def _check_unique(values: list[str], what: str) -> None:
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            raise ContractError(f"{value[:80]!r} appears twice", subject=f"{what}[{index}]")
        seen.add(value)
