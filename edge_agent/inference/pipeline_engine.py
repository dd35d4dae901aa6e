"""Pipelines at work: the engine of format `pipeline` runs the bundles of its nodes as the graph says.

Each model node is a `Runtime` of its own: its guards and its ladder answer for it, so a variant that fails is replaced
by the next one of its bundle before the pipeline notices. A node that has no answer, or not in time, fails what waits
for it; the pipeline then has no answer either, and the slot's ladder goes on as for any model that failed. What does
not need a model (crops, ensembles) is in `edge_agent.processing`, the graph's rules in `edge_contracts.pipeline`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct

from edge_agent.answer import Answer, NodeAnswer
from edge_agent.bundle import Bundle, open_bundle
from edge_agent.errors import EngineError, TensorError
from edge_agent.fallback_ladder import LadderRelease, Rung, build_ladder
from edge_agent.inference.runtime import Runtime
from edge_agent.ports import Array, Bound, EngineSettings, TensorInfo, Tensors
from edge_agent.processing.pipeline_ops import crop_boxes, mean, slide, votes
from edge_contracts import __version__, limits
from edge_contracts.answering import TEXT, Spec
from edge_contracts.manifest import Manifest
from edge_contracts.pipeline import (
    INPUT,
    NODES_FOLDER,
    CropsNode,
    MeanNode,
    ModelNode,
    Node,
    Pipeline,
    VoteNode,
    WindowNode,
    check_pipeline,
    node_of,
    ordered,
    parse_pipeline,
    references,
)


class PipelineEngine:
    """See `ports.Engine`."""

    name = "pipeline"
    version = __version__

    def load(self, model: Path, settings: EngineSettings) -> PipelineSession:
        """Load a pipeline's file and the bundles beside it. Raises EngineError, BundleError or ContractError naming the
        node that cannot be loaded or does not fit."""
        try:
            with model.open("rb") as file:
                pipeline = parse_pipeline(file.read(limits.MAX_PIPELINE_BYTES + 1))
        except OSError as error:
            raise EngineError(error.strerror or "cannot be read", subject=model.name) from error
        models = [node for node in pipeline.nodes if isinstance(node, ModelNode)]
        bundles = {node.name: _open(model.parent / NODES_FOLDER / node.name, node) for node in models}
        outputs = check_pipeline(pipeline, {name: bundle.manifest for name, bundle in bundles.items()})
        news: list[str] = []
        runtimes = {node.name: _runtime(bundles[node.name], node, settings, news) for node in models}
        return PipelineSession(pipeline, runtimes, outputs, news)


def engine() -> PipelineEngine:
    """Return the engine."""
    return PipelineEngine()


def _open(folder: Path, node: ModelNode) -> Bundle:
    bundle = open_bundle(folder, verify=False)  # a runtime checks each file before it opens it
    if bundle.manifest_sha256 != node.manifest_sha256:
        raise EngineError("its manifest differs from the one the pipeline pins", subject=f"node {node.name}")
    return bundle


def _runtime(bundle: Bundle, node: ModelNode, settings: EngineSettings, news: list[str]) -> Runtime:
    """Return a node's runtime with its first rung that works loaded; what fails in it is added to `news`.

    Raises EngineError naming the node and why nothing works."""
    release = LadderRelease(
        role="local", folder=str(bundle.folder), manifest_sha256=bundle.manifest_sha256, manifest=bundle.manifest
    )
    ladder = build_ladder([release])

    def on_fault(rung: Rung, _: str, text: str) -> None:
        news.append(f"node {node.name}: {rung.served_by}: {text}")

    runtime = Runtime(ladder, settings=settings, on_fault=on_fault)
    if runtime.prefer(node.variant) not in [rung.served_by for rung in ladder]:
        raise EngineError(f"no variant works: {'; '.join(news)}", subject=f"node {node.name}")
    return runtime


class _NoAnswerError(Exception):
    """A node has none; why is the text."""


class _Pass(Struct, kw_only=True):
    """One sample's way through the graph: what is known by reference, and why nodes have no answer."""

    values: dict[str, Array]
    failed: dict[str, str]


class PipelineSession:
    """See `ports.Session` and `ports.Composite`. Samples of a batch go through one by one, as on a device."""

    def __init__(
        self, pipeline: Pipeline, runtimes: Mapping[str, Runtime], outputs: Mapping[str, Spec], news: list[str]
    ) -> None:
        """`outputs` are what `check_pipeline` found; `news` is where the runtimes tell of their faults."""
        self.inputs = tuple(
            TensorInfo(name=name, dtype=one.dtype, shape=one.shape) for name, one in pipeline.inputs.items()
        )
        self.outputs = tuple(
            TensorInfo(name=name, dtype=spec.dtype, shape=spec.shape) for name, spec in outputs.items()
        )
        self.nodes: tuple[NodeAnswer, ...] = ()
        self._states = frozenset(pipeline.states)
        self._order = ordered(pipeline.nodes)
        self._answers = pipeline.outputs
        self._runtimes = runtimes
        self._news = news

    def run(self, feeds: Tensors, *, shrink: bool = False) -> dict[str, Array]:  # noqa: ARG002
        """Return outputs by name. Raises EngineError naming the node without which there is no answer, and
        EngineMemoryError when an allocation failed in one."""
        did: dict[str, NodeAnswer] = {}
        rows: list[dict[str, Array]] = []
        whole = {f"{INPUT}/{name}": feeds[name] for name in self._states}
        sampled = {name: array for name, array in feeds.items() if name not in self._states}
        count = len(next(iter(sampled.values())))
        if self._states and count != 1:
            raise EngineError(f"{count} samples in one step of a stream", subject="pipeline")
        for index in range(count):
            sample = {f"{INPUT}/{name}": array[index : index + 1] for name, array in sampled.items()} | whole
            rows.append(self._run_one(_Pass(values=sample, failed={}), did))
        self.nodes = tuple(did.values())
        try:
            return {name: np.concatenate([row[name] for row in rows]) for name in self._answers}
        except ValueError as error:
            raise EngineError(f"samples of one batch differ in their answers' shapes: {error}") from error

    def bind(self, feeds: Tensors, answer: Tensors) -> Bound:  # noqa: ARG002
        """Raise EngineError: there are no buffers that outlive a request."""
        raise EngineError("a pipeline is not bound", subject="pipeline")

    def news(self) -> list[str]:
        """Return what failed inside a node since this was last asked."""
        found = self._news[:]
        self._news.clear()
        return found

    def close(self) -> None:
        """Unload every node."""
        for runtime in self._runtimes.values():
            runtime.close()

    def _run_one(self, way: _Pass, did: dict[str, NodeAnswer]) -> dict[str, Array]:
        for node in self._order:
            start = time.monotonic_ns()
            served: str | None = None
            warnings: tuple[str, ...] = ()
            try:
                made, served, warnings = self._node(node, way)
                way.values |= {f"{node.name}/{name}": array for name, array in made.items()}
            except _NoAnswerError as error:
                way.failed[node.name] = str(error)
            except (ValueError, IndexError) as error:  # sizes that were open until now
                way.failed[node.name] = f"its inputs do not match: {error}"
            done = NodeAnswer(
                node=node.name,
                served_by=served,
                timing_us=(time.monotonic_ns() - start) // 1000,
                failed=way.failed.get(node.name),
                warnings=warnings,
            )
            did[node.name] = _together(did.get(node.name), done)
        for reference in self._answers.values():
            if reference not in way.values:
                name = node_of(reference)
                raise EngineError(way.failed.get(name, f"no {reference}"), subject=f"node {name}")
        return {name: way.values[reference] for name, reference in self._answers.items()}

    def _node(self, node: Node, way: _Pass) -> tuple[Mapping[str, Array], str | None, tuple[str, ...]]:
        """Return what a node makes, who served it, and warnings. Raises _NoAnswerError."""
        if isinstance(node, MeanNode | VoteNode):
            return _ensemble(node, way), None, ()
        for reference in references(node):
            if reference not in way.values:
                name = node_of(reference)
                raise _NoAnswerError(f"waits for node {name}: {way.failed.get(name, 'no such output')}")
        if isinstance(node, CropsNode):
            crops = crop_boxes(
                way.values[node.image], way.values[node.boxes], (node.height, node.width), margin=node.margin
            )
            return {"crops": crops}, None, ()
        if isinstance(node, WindowNode):
            return {"window": slide(way.values[node.past], way.values[node.of])}, None, ()
        return self._model(node, way)

    def _model(self, node: ModelNode, way: _Pass) -> tuple[Mapping[str, Array], str, tuple[str, ...]]:
        runtime = self._runtimes[node.name]
        tensors = {name: way.values[reference] for name, reference in node.inputs.items()}
        late_ns = None if node.deadline_ms is None else time.monotonic_ns() + int(node.deadline_ms * 1e6)
        if node.rows is None:
            answers = [_ask(node, runtime, tensors, late_ns)]
            made: Mapping[str, Array] = answers[0].outputs
        else:
            most = next(iter(tensors.values())).shape[1]
            count = min(int(way.values[node.rows][0]), most)
            rows = ({name: array[:, row] for name, array in tensors.items()} for row in range(count))
            answers = [_ask(node, runtime, one, late_ns) for one in rows]
            made = _stacked(answers, runtime.manifest, most)
        served = ", ".join(dict.fromkeys(answer.served_by for answer in answers)) or runtime.serving
        return made, served, tuple(dict.fromkeys(text for answer in answers for text in answer.warnings))


def _ask(node: ModelNode, runtime: Runtime, tensors: Tensors, late_ns: int | None) -> Answer:
    try:
        answer = runtime.infer(tensors)
    except TensorError as error:
        raise _NoAnswerError(str(error)) from error
    if answer.model_sha256 is None:  # a last resort is for who asks, and knows; here it would look like an answer
        raise _NoAnswerError("; ".join(("no variant answers", *answer.warnings)))
    if late_ns is not None and time.monotonic_ns() > late_ns:
        raise _NoAnswerError(f"took longer than {node.deadline_ms:g} ms")
    return answer


def _stacked(answers: Sequence[Answer], manifest: Manifest, most: int) -> dict[str, Array]:
    """Return the answers of rows as [1, most, ...], zero or empty where there is no row."""
    made = {}
    for name, spec in manifest.answers.items():
        dtype = "U1" if spec.dtype == TEXT else spec.dtype
        empty = np.zeros((most - len(answers), *spec.shape[1:]), dtype)
        made[name] = np.concatenate([*(answer.outputs[name] for answer in answers), empty])[None]
    return made


def _ensemble(node: MeanNode | VoteNode, way: _Pass) -> dict[str, Array]:
    there = [way.values[reference] for reference in node.of if reference in way.values]
    least = len(node.of) if node.least is None else node.least
    if len(there) < least:
        missing = [node_of(reference) for reference in node.of if reference not in way.values]
        why = "; ".join(f"{name}: {way.failed.get(name, 'no answer')}" for name in missing)
        raise _NoAnswerError(f"{len(there)} of at least {least} members have answered ({why})")
    return {"mean": mean(there)} if isinstance(node, MeanNode) else {"votes": votes(there)}


def _together(before: NodeAnswer | None, now: NodeAnswer) -> NodeAnswer:
    """Return what a node did for the samples of a batch so far: times add up, what is worth telling stays."""
    if before is None:
        return now
    rungs = [served for served in (before.served_by, now.served_by) if served is not None]
    return NodeAnswer(
        node=now.node,
        served_by=", ".join(dict.fromkeys(rungs)) or None,
        timing_us=before.timing_us + now.timing_us,
        failed=now.failed or before.failed,
        warnings=tuple(dict.fromkeys((*before.warnings, *now.warnings))),
    )
