"""The states of a composed pipeline: what its models feed back and its windows keep becomes inputs and outputs of it.

A person names none of them. Who runs the pipeline feeds them back, as of any model that remembers.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from edge_agent.offline.compose_file import PipelineFile, WindowSource
from edge_contracts.answering import Spec
from edge_contracts.codec import convert
from edge_contracts.errors import ContractError
from edge_contracts.manifest import Manifest
from edge_contracts.pipeline import (
    INPUT,
    ModelNode,
    Pipeline,
    PipelineInput,
    WindowNode,
    node_specs,
    ordered,
)


def past_of(window: str) -> str:
    """Return the name of the state that a window keeps."""
    return f"{window}.past"


def with_states(graph: Pipeline, file: PipelineFile, manifests: Mapping[str, Manifest]) -> Pipeline:
    """Return the graph with a state for everything in it that is kept from step to step, in the nodes' order.

    Raises ContractError naming the node whose state cannot be kept.
    """
    windows = {node.name: node for node in file.nodes if isinstance(node, WindowSource)}
    known = {f"{INPUT}/{name}": Spec(dtype=one.dtype, shape=one.shape) for name, one in graph.inputs.items()}
    for node in ordered(graph.nodes):
        if isinstance(node, WindowNode):
            of = known.get(node.of)
            if of is None:
                raise ContractError(f"no output {node.of[:80]!r}", subject=f"nodes[{node.name}]")
            graph = _with_window(graph, windows[node.name], of)
        elif isinstance(node, ModelNode):
            graph, node = _with_fed_back(graph, node, manifests[node.name])
        known |= {f"{INPUT}/{name}": Spec(dtype=one.dtype, shape=one.shape) for name, one in graph.inputs.items()}
        known |= node_specs(node, known, manifests)
    return graph


def _with_fed_back(graph: Pipeline, node: ModelNode, manifest: Manifest) -> tuple[Pipeline, ModelNode]:
    for tensor in manifest.inputs:
        if tensor.feedback is None or tensor.name in node.inputs:
            continue
        state, source = f"{node.name}.{tensor.name}", f"{node.name}.{tensor.feedback}"
        kept = PipelineInput(dtype=tensor.dtype, shape=tensor.resting_shape)
        node = replace(node, inputs={**node.inputs, tensor.name: f"{INPUT}/{state}"})
        graph = _keep(graph, state, kept, source, f"{node.name}/{tensor.feedback}")
    nodes = tuple(node if one.name == node.name else one for one in graph.nodes)
    return replace(graph, nodes=nodes), node


def _with_window(graph: Pipeline, window: WindowSource, of: Spec) -> Pipeline:
    row = of.shape[2:] if window.row is None else window.row
    if any(size < 1 for size in row):
        raise ContractError(f"rows of {list(row)} have no size: give `row`", subject=f"nodes[{window.name}]")
    kept = convert({"dtype": of.dtype, "shape": [1, window.rows, *row]}, PipelineInput, what=f"nodes[{window.name}]")
    return _keep(graph, past_of(window.name), kept, f"{window.name}.window", f"{window.name}/window")


def _keep(graph: Pipeline, state: str, kept: PipelineInput, source: str, reference: str) -> Pipeline:
    for name, taken in ((state, graph.inputs), (source, graph.outputs)):
        if name in taken:
            raise ContractError("this name is taken by a state of the pipeline", subject=name)
    return replace(
        graph,
        inputs={**graph.inputs, state: kept},
        outputs={**graph.outputs, source: reference},
        states={**graph.states, state: source},
    )
