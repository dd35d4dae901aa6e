"""Pipelines: several models as one, a small graph in a file of its bundle.

A pipeline is a variant of format `pipeline`. Beside its file lie the bundles of its models in `nodes/<name>/`, each
whole, with its own ladder, guards, golden answers and thresholds. The file pins their manifests, and the bundle's
manifest pins the file and everything else, so a pipeline is signed, fetched, tried and rolled back as one release.

Here: the graph's records and every check that needs no model. Running one is in `edge_agent.inference.pipeline_engine`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Literal

from msgspec import Meta

from edge_contracts import limits
from edge_contracts.answering import TEXT, Spec
from edge_contracts.codec import StrictRecord, decode, encode
from edge_contracts.errors import ContractError
from edge_contracts.manifest import MANIFEST_NAME, DType, Input, Manifest, parse_manifest
from edge_contracts.names import Name, Sha256, Text
from edge_contracts.processing import ANY, Side
from edge_contracts.tensors import Shape, may_be

PIPELINE_SCHEMA = 1
NODES_FOLDER = "nodes"
INPUT = "input"
"""The pipeline's own inputs are named like outputs of a node of this name."""

Reference = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}/", max_length=2000, description="node/output")
]
Names = Annotated[dict[Text, Reference], Meta(min_length=1, max_length=limits.MAX_TENSORS)]
Members = Annotated[tuple[Reference, ...], Meta(min_length=2, max_length=limits.MAX_NODES)]


class ModelNode(StrictRecord, frozen=True, kw_only=True, tag_field="kind", tag="model"):
    """A bundle's model. `inputs` says where each of its inputs comes from; its outputs are what its answers may hold. A
    constant of its manifest may be left out; what it feeds back comes from a state of the pipeline.

    With `rows`, a count [batch], each input has one more axis behind the batch: the model answers the first so many of
    its rows one by one, and the answers of the others are zero. `variant` is the one preferred, None the first of
    its ladder. An answer that took longer than `deadline_ms`, rows together, is none.
    """

    name: Name
    manifest_sha256: Sha256
    inputs: Names
    rows: Reference | None = None
    variant: Name | None = None
    deadline_ms: Annotated[float, Meta(gt=0.0)] | None = None


class CropsNode(StrictRecord, frozen=True, kw_only=True, tag_field="kind", tag="crops"):
    """What `boxes` [batch, most, 4] show of `image` [batch, height, width, channels]: `<name>/crops`, in the image's
    dtype, [batch, most, height, width, channels], each resized whatever its proportions. Boxes are x1, y1, x2, y2
    between 0 and 1, as detections are, and grow on each side by `margin` times their own size."""

    name: Name
    image: Reference
    boxes: Reference
    height: Side
    width: Side
    margin: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0


class MeanNode(StrictRecord, frozen=True, kw_only=True, tag_field="kind", tag="mean"):
    """The mean of the answers of several nodes: `<name>/mean`, in float32. Members that failed are left out as long as
    `least` have answered; None asks for all."""

    name: Name
    of: Members
    least: Annotated[int, Meta(ge=1)] | None = None


class VoteNode(StrictRecord, frozen=True, kw_only=True, tag_field="kind", tag="vote"):
    """The share of members whose largest score, along the last axis, is each class: `<name>/votes`, in float32.
    Members that failed are left out as long as `least` have answered; None asks for all."""

    name: Name
    of: Members
    least: Annotated[int, Meta(ge=1)] | None = None


class WindowNode(StrictRecord, frozen=True, kw_only=True, tag_field="kind", tag="window"):
    """The newest rows of what a stream has brought so far: `<name>/window`, of the shape and dtype of the state `past`,
    [1, rows, ...]. Each step adds what `of` holds, as many rows of such a shape as it has, and the oldest fall out. It
    is itself the state that `past` is at the next step."""

    name: Name
    of: Reference
    past: Reference


Node = ModelNode | CropsNode | MeanNode | VoteNode | WindowNode


class PipelineInput(StrictRecord, frozen=True, kw_only=True):
    """One input of the pipeline."""

    dtype: DType
    shape: Shape


class Pipeline(StrictRecord, frozen=True, kw_only=True):
    """The graph. `outputs` names what the pipeline answers; nodes may stand in any order. `states` are the inputs that
    are fed back, each with the name of the output of the step before; beside them there is one sample in a step."""

    schema: Literal[1] = 1
    states: Annotated[dict[Text, Text], Meta(max_length=limits.MAX_TENSORS)] = {}
    inputs: Annotated[dict[Text, PipelineInput], Meta(min_length=1, max_length=limits.MAX_TENSORS)]
    nodes: Annotated[tuple[Node, ...], Meta(min_length=1, max_length=limits.MAX_NODES)]
    outputs: Names


def parse_pipeline(data: bytes) -> Pipeline:
    """Parse a pipeline's file. Raises ContractError naming the field; whether it holds is `check_pipeline`'s."""
    return decode(data, Pipeline, limit=limits.MAX_PIPELINE_BYTES, what="pipeline")


def pipeline_bytes(pipeline: Pipeline) -> bytes:
    """Return the canonical bytes of a pipeline's file. Raises ContractError for what could not be read again."""
    data = encode(pipeline)
    parse_pipeline(data)
    return data


def ordered(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Return the nodes so that each comes after those it reads. Raises ContractError naming the node that appears
    twice or reads one that is not there, or the nodes of a cycle."""
    known = {node.name: node for node in nodes}
    if len(known) != len(nodes) or INPUT in known:
        names = [node.name for node in nodes]
        twice = next((name for name in names if names.count(name) > 1), INPUT)
        raise ContractError("this name is taken", subject=f"pipeline.nodes[{twice}]")
    needs: dict[str, set[str]] = {}
    for node in nodes:
        needs[node.name] = {node_of(reference) for reference in references(node)} - {INPUT}
        for name in needs[node.name] - known.keys():
            raise ContractError(f"no node {name!r}", subject=f"pipeline.nodes[{node.name}]")
    try:
        return tuple(known[name] for name in TopologicalSorter(needs).static_order())
    except CycleError as error:
        cycle = list(reversed(error.args[1]))
        raise ContractError(
            f"they wait for each other: {' -> '.join(cycle)}", subject=f"pipeline.nodes[{cycle[0]}]"
        ) from (error)


def references(node: Node) -> tuple[str, ...]:
    """Return everything that a node reads."""
    if isinstance(node, ModelNode):
        return (*node.inputs.values(), *(() if node.rows is None else (node.rows,)))
    if isinstance(node, WindowNode):
        return node.of, node.past
    return (node.image, node.boxes) if isinstance(node, CropsNode) else node.of


def node_of(reference: str) -> str:
    """Return the node that a reference names."""
    return reference.partition("/")[0]


def check_pipeline(pipeline: Pipeline, manifests: Mapping[str, Manifest]) -> dict[str, Spec]:
    """Follow the graph with the manifests of its models, by node; return what each of the pipeline's outputs is.

    Raises ContractError naming the node whose inputs, shapes or dtypes do not fit, the nodes of a cycle, or a name that
    is not there.
    """
    known = {f"{INPUT}/{name}": Spec(dtype=one.dtype, shape=one.shape) for name, one in pipeline.inputs.items()}
    for name, spec in known.items():
        if name.partition("/")[2] in pipeline.states:
            if ANY in spec.shape or not 0 < math.prod(spec.shape) <= limits.MAX_STEP_ELEMENTS:
                raise ContractError(f"a state of {list(spec.shape)} has no size to keep", subject=f"pipeline {name}")
        elif spec.shape[:1] not in ((ANY,), (1,)):
            raise ContractError("its first dimension is a batch of any size or of 1", subject=f"pipeline {name}")
    for node in ordered(pipeline.nodes):
        known |= node_specs(node, known, manifests)
    outputs = {}
    for name, reference in pipeline.outputs.items():
        what = f"pipeline.outputs[{name}]"
        spec = _known(known, reference, what)
        if spec.dtype == TEXT or not spec.shape:
            raise ContractError("numbers with a batch are answered; names of classes are a step's", subject=what)
        outputs[name] = Spec(dtype=spec.dtype, shape=(ANY, *spec.shape[1:]))
    for state, source in pipeline.states.items():
        outputs[source] = _check_state(pipeline, state, source, outputs)
    return outputs


def node_specs(node: Node, known: Mapping[str, Spec], manifests: Mapping[str, Manifest]) -> dict[str, Spec]:
    """Return what a node makes of what is known by reference, by reference. Raises ContractError naming the node."""
    what = f"pipeline.nodes[{node.name}]"
    specs = {reference: _known(known, reference, what) for reference in references(node)}
    if isinstance(node, ModelNode):
        made = _model(node, manifests[node.name], specs, what)
    elif isinstance(node, CropsNode):
        made = {"crops": _crops(node, specs[node.image], specs[node.boxes], what)}
    elif isinstance(node, WindowNode):
        made = {"window": _window(specs[node.of], specs[node.past], what)}
    else:
        made = {"mean" if isinstance(node, MeanNode) else "votes": _ensemble(node, specs, what)}
    return {f"{node.name}/{name}": spec for name, spec in made.items()}


def _check_state(pipeline: Pipeline, state: str, source: str, outputs: Mapping[str, Spec]) -> Spec:
    """Return what the output is that a state is fed back from: of the state's own shape."""
    what = f"pipeline.states[{state}]"
    if state not in pipeline.inputs or source not in outputs:
        raise ContractError(f"an input of the pipeline is fed back from one of its outputs, not {source}", subject=what)
    wanted, made = pipeline.inputs[state], outputs[source]
    if made.dtype != wanted.dtype or not may_be(made.shape, (ANY, *wanted.shape[1:])):
        text = f"an output of {made.dtype} {list(made.shape)} for a state of {wanted.dtype} {list(wanted.shape)}"
        raise ContractError(text, subject=what)
    return Spec(dtype=wanted.dtype, shape=wanted.shape)


def check_contents(manifest: Manifest, read: Callable[[str], bytes]) -> None:
    """Check every pipeline of a bundle, with what `read` returns for the paths of its files.

    Raises ContractError naming the node or the field; errors of `read` pass through.
    """
    for variant in manifest.variants:
        if variant.format != "pipeline":
            continue
        pipeline = parse_pipeline(read(variant.file))
        manifests = {
            node.name: _node_manifest(manifest, node, read) for node in pipeline.nodes if isinstance(node, ModelNode)
        }
        outputs = check_pipeline(pipeline, manifests)
        inputs = {tensor.name: (tensor.dtype, tensor.shape) for tensor in manifest.inputs}
        if inputs != {name: (one.dtype, one.shape) for name, one in pipeline.inputs.items()}:
            raise ContractError("they are not those of the pipeline", subject="manifest.inputs")
        declared = {tensor.name: Spec(dtype=tensor.dtype, shape=tensor.shape) for tensor in manifest.outputs}
        if declared != outputs:
            raise ContractError("they are not those of the pipeline", subject="manifest.outputs")
        if {tensor.name: tensor.feedback for tensor in manifest.inputs if tensor.feedback} != pipeline.states:
            raise ContractError("what is fed back is not what the pipeline says", subject="manifest.inputs")


def _node_manifest(manifest: Manifest, node: ModelNode, read: Callable[[str], bytes]) -> Manifest:
    folder, what = f"{NODES_FOLDER}/{node.name}", f"pipeline.nodes[{node.name}]"
    data = read(f"{folder}/{MANIFEST_NAME}")
    if hashlib.sha256(data).hexdigest() != node.manifest_sha256:
        raise ContractError("its manifest is not the one the pipeline pins", subject=what)
    inner = parse_manifest(data)
    for entry in inner.files:
        held = manifest.file(f"{folder}/{entry.path}")
        if (held.size, held.sha256) != (entry.size, entry.sha256):
            raise ContractError(f"{entry.path} is not the file its own manifest pins", subject=what)
    return inner


def _known(known: Mapping[str, Spec], reference: str, what: str) -> Spec:
    if reference not in known:
        there = ", ".join(name for name in known if node_of(name) == node_of(reference)) or "no such node"
        raise ContractError(f"no output {reference[:80]!r} ({there})", subject=what)
    return known[reference]


def _model(node: ModelNode, manifest: Manifest, specs: Mapping[str, Spec], what: str) -> dict[str, Spec]:
    if any(variant.format == "pipeline" for variant in manifest.variants):
        raise ContractError("a pipeline in a pipeline", subject=what)
    if node.variant is not None and node.variant not in [variant.id for variant in manifest.variants]:
        raise ContractError(f"no variant {node.variant!r}", subject=f"{what}.variant")
    needed = {tensor.name for tensor in manifest.inputs if tensor.constant is None}
    if not needed <= node.inputs.keys() <= {tensor.name for tensor in manifest.inputs}:
        there = ", ".join(tensor.name for tensor in manifest.inputs)
        raise ContractError(f"its model has the inputs {there}", subject=f"{what}.inputs")
    for tensor in manifest.inputs:
        if not tensor.sampled:
            _check_unsampled(tensor, node, specs, what)
            continue
        if tensor.sample_shape[:1] not in ((ANY,), (1,)):
            raise ContractError("its model takes a larger batch", subject=f"{what}.inputs[{tensor.name}]")
        _check_fit(tensor, specs[node.inputs[tensor.name]], f"{what}.inputs[{tensor.name}]", rows=node.rows is not None)
    outputs = manifest.answers
    if node.rows is None:
        return outputs
    if any(ANY in spec.shape[1:] or not spec.shape for spec in outputs.values()):
        raise ContractError("answers of rows need one known size", subject=what)
    most = _most(node, specs, what)
    return {name: Spec(dtype=spec.dtype, shape=(ANY, most, *spec.shape[1:])) for name, spec in outputs.items()}


def _check_unsampled(tensor: Input, node: ModelNode, specs: Mapping[str, Spec], what: str) -> None:
    """Check where a constant or a state of a model comes from."""
    reference, where = node.inputs.get(tensor.name), f"{what}.inputs[{tensor.name}]"
    if reference is None:
        return
    if tensor.feedback is not None and node.rows is not None:
        raise ContractError("a model that remembers cannot answer rows, which are of different things", subject=where)
    spec = specs[reference]
    if spec.dtype != tensor.dtype or not may_be(spec.shape, tensor.shape):
        text = f"takes {tensor.dtype} {list(tensor.shape)}, is given {spec.dtype} {list(spec.shape)}"
        raise ContractError(text, subject=where)


def _most(node: ModelNode, specs: Mapping[str, Spec], what: str) -> int:
    """Return how many rows there are at most."""
    count = specs[node.rows or ""]
    if len(count.shape) != 1 or not count.dtype.startswith("int"):
        raise ContractError(
            f"a count is [batch] of integers, not {count.dtype} {list(count.shape)}", subject=f"{what}.rows"
        )
    sizes = {specs[reference].shape[1:2] for reference in node.inputs.values()}
    if len(sizes) != 1 or not 0 < sum(next(iter(sizes))) <= limits.MAX_DETECTIONS:
        raise ContractError(f"inputs of 1 to {limits.MAX_DETECTIONS} rows, all alike", subject=f"{what}.inputs")
    return sum(next(iter(sizes)))


def _check_fit(tensor: Input, spec: Spec, what: str, *, rows: bool) -> None:
    """Check that a model's input takes what it is given: as a sample, or as the model is fed."""
    ways = [(tensor.sample.dtype, tensor.sample_shape)]
    if tensor.dtype != tensor.sample.dtype:
        ways.append((tensor.dtype, tensor.shape))
    given = spec.shape[2:] if rows else spec.shape[1:]
    for dtype, shape in ways:
        if dtype == spec.dtype and len(shape) == len(given) + 1 and all(map(_fits, given, shape[1:])):
            return
    wanted = " or ".join(f"{dtype} {list(shape)}" for dtype, shape in ways)
    raise ContractError(f"takes {wanted}, is given {spec.dtype} {[ANY, *given]}", subject=what)


def _fits(given: int, declared: int) -> bool:
    """A size that is open until a request comes is checked then."""
    return declared == ANY or given in (declared, ANY)


def _window(of: Spec, past: Spec, what: str) -> Spec:
    if len(past.shape) < 2 or past.shape[0] != 1 or past.dtype != of.dtype or of.dtype == TEXT:
        text = f"keeps [1, rows, ...] of {of.dtype}, its past is {past.dtype} {list(past.shape)}"
        raise ContractError(text, subject=f"{what}.past")
    added, row = math.prod(of.shape[1:]), math.prod(past.shape[2:])
    if ANY not in of.shape[1:] and (added % row or not added):
        raise ContractError(f"{list(of.shape)} are no rows of {list(past.shape[2:])}", subject=f"{what}.of")
    return past


def _crops(node: CropsNode, image: Spec, boxes: Spec, what: str) -> Spec:
    if len(image.shape) != 4 or image.dtype in (TEXT, "bool"):
        raise ContractError(f"an image is [batch, height, width, channels], not {list(image.shape)}", subject=what)
    if len(boxes.shape) != 3 or boxes.shape[2] != 4 or not 0 < boxes.shape[1] <= limits.MAX_DETECTIONS:
        raise ContractError(f"boxes are [batch, most, 4], not {list(boxes.shape)}", subject=what)
    channels = image.shape[3]
    if boxes.shape[1] * node.height * node.width * max(channels, 1) > limits.MAX_STEP_ELEMENTS:
        raise ContractError(f"more than {limits.MAX_STEP_ELEMENTS} elements", subject=what)
    return Spec(dtype=image.dtype, shape=(ANY, boxes.shape[1], node.height, node.width, channels))


def _ensemble(node: MeanNode | VoteNode, specs: Mapping[str, Spec], what: str) -> Spec:
    shapes = {spec.shape[1:] for spec in specs.values()}
    numbers = all(spec.dtype.startswith(("float", "int", "uint")) for spec in specs.values())
    if len(shapes) != 1 or not numbers or len(specs) != len(node.of):
        raise ContractError("members are different answers of one shape, all numbers", subject=f"{what}.of")
    if node.least is not None and node.least > len(node.of):
        raise ContractError(f"{node.least} of {len(node.of)} members", subject=f"{what}.least")
    shape = next(iter(shapes))
    if isinstance(node, VoteNode) and (not shape or shape[-1] < 2):
        raise ContractError(f"a vote needs one number for each class, not {[ANY, *shape]}", subject=f"{what}.of")
    return Spec(dtype="float32", shape=(ANY, *shape))
