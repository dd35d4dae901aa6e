"""Transformer fusion: each self-attention becomes one operator, which ONNX Runtime has in float and in 8 bits.

Finding attention is in `edge_compression.onnx_tools.attention_matcher`. Gelu and biases are left as they are: ONNX
Runtime fuses those when it loads a model, also after quantization. Residual sums and their norms are left on purpose:
SkipLayerNormalization is slower than the two operators it stands for (docs/decisions/0015).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, ClassVar

import numpy as np
import onnx
from msgspec import Meta
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge_compression.onnx_tools.attention_matcher import (
    MASKED,
    AttentionCandidate,
    Layout,
    Mask,
    Projection,
    candidates,
    layout,
    merging,
    probe,
    projection,
    record,
)
from edge_compression.onnx_tools.equivalence import CHECKED_SAMPLES, largest_difference
from edge_compression.onnx_tools.graph import load, save
from edge_compression.onnx_tools.graph_index import GraphIndex, drop_unused
from edge_compression.pass_api import Applied, Context, PassError
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format

Array = NDArray[Any]
DOMAIN = "com.microsoft"


@dataclass(frozen=True, kw_only=True)
class _Block:
    """A candidate with all that is needed to write it as one operator."""

    candidate: AttentionCandidate
    projections: tuple[Projection, Projection, Projection]
    layout: Layout
    sequence_first: bool

    @property
    def source(self) -> str:
        """What is projected, [batch, sequence, features] or, `sequence_first`, [sequence, batch, features]."""
        return self.projections[0].source


class FuseTransformer(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="fuse_transformer"):
    """Write self-attention over one sequence, masked or not, as com.microsoft's Attention. The result must agree with
    the given model on the first calibration samples within `tolerance`, relative to the range of each output.
    Raises PassError when there is no attention or the fused model differs."""

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = False

    tolerance: Annotated[float, Meta(gt=0.0)] = 1e-3

    def apply(self, model: bytes, context: Context) -> Applied:
        graph = load(model)
        samples = list(islice(context.calibration(), CHECKED_SAMPLES))
        if not samples:
            raise PassError("no calibration sample", subject="calib_x")
        blocks = _blocks(graph, samples[0])
        masks = {block.candidate.mask for block in blocks} - {None}
        usable = {mask for mask in masks if mask and _hides_positions(graph, mask, samples)}
        blocks = [block for block in blocks if block.candidate.mask is None or block.candidate.mask in usable]
        if not blocks:
            raise PassError("no self-attention found")
        _write(graph, blocks)
        fused = save(graph)
        difference = largest_difference(model, fused, context)
        if not difference <= self.tolerance:
            raise PassError(f"the fused model differs by {difference:.2g} of its range")
        return Applied(model=fused, changed={"attention": len(blocks), "largest_difference": difference})


def _blocks(graph: onnx.ModelProto, feeds: Any) -> list[_Block]:
    """Return the candidates of one sequence whose heads' layout one sample shows."""
    view = GraphIndex(graph)
    found = [(one, parts) for one in candidates(view) if (parts := _projections(view, one)) is not None]
    if not found:
        return []
    roots = [root for one, _ in found for root in (one.query.root, one.key.root, one.value.root)]
    sources = [parts[0].source for _, parts in found]
    recorded = {**feeds, **record(graph, [name for name in roots + sources if name not in feeds], feeds)}
    chains = {one.result: merging(view, one.result) for one, _ in found}
    operands = [part.name for one, _ in found for part in (one.query, one.key, one.value)]
    results = record(graph, list(chains), feeds)
    shapes = {name: recorded[name].shape for name in roots} | {name: one.shape for name, one in results.items()}
    probed = probe(graph, shapes, operands + [name for chain in chains.values() for name in chain], feeds)
    blocks = []
    for one, parts in found:
        widths = (parts[0].bias.size, parts[1].bias.size, parts[2].bias.size)
        where = layout(one, chains[one.result], probed, widths)
        shape = recorded[parts[0].source].shape
        if where is not None and len(shape) == 3:
            blocks.append(_Block(candidate=one, projections=parts, layout=where, sequence_first=shape[0] > 1))
    return blocks


def _projections(view: GraphIndex, one: AttentionCandidate) -> tuple[Projection, Projection, Projection] | None:
    query, key, value = (projection(view, part.root) for part in (one.query, one.key, one.value))
    if query and key and value and query.source == key.source == value.source:
        return query, key, value
    return None


def _hides_positions(graph: onnx.ModelProto, mask: Mask, samples: list[Any]) -> bool:
    """Return whether a mask, [1, heads or 1, 1, positions], says for each position of each sample whether any head
    sees it at all."""
    for feeds in samples:
        values = record(graph, [mask.name], feeds)[mask.name] if mask.name not in feeds else feeds[mask.name]
        if values.ndim != 4 or values.shape[0] != 1 or values.shape[2] != 1 or (values != values[:, :1]).any():
            return False
        if mask.kind == "bias" and not ((values == 0) | (values <= MASKED)).all():
            return False
    return True


def _write(graph: onnx.ModelProto, blocks: list[_Block]) -> None:
    """Put the fused operators in; what they replace goes when nothing reads it."""
    masks: dict[Mask, str] = {}
    for index, block in enumerate(blocks):
        mask = block.candidate.mask
        if mask is not None and mask not in masks:
            masks[mask] = _mask_input(graph, mask, f"seen_{len(masks)}")
        _write_block(graph, block, masks[mask] if mask else "", f"attention_{index}")
    if all(entry.domain != DOMAIN for entry in graph.opset_import):
        graph.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    drop_unused(graph)


def _write_block(graph: onnx.ModelProto, block: _Block, mask: str, name: str) -> None:
    found, one = block.layout, block.candidate
    scales = (1.0, 1.0, one.value.scale)
    parts = list(zip(block.projections, found.columns, scales, strict=True))
    weights = np.concatenate([part.weights[:, columns] * scale for part, columns, scale in parts], axis=1)
    bias = np.concatenate([part.bias[columns] * scale for part, columns, scale in parts])
    sizes = [columns.size for columns in found.columns]
    graph.graph.initializer.append(numpy_helper.from_array(weights.astype(np.float32), f"{name}_weights"))
    graph.graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), f"{name}_bias"))
    source = block.source
    if block.sequence_first:
        graph.graph.node.append(helper.make_node("Transpose", [source], [f"{name}_source"], perm=[1, 0, 2]))
        source = f"{name}_source"
    node = helper.make_node(
        "Attention",
        [source, f"{name}_weights", f"{name}_bias", *([mask] if mask else [])],
        [f"{name}_out"],
        name=name,
        domain=DOMAIN,
        num_heads=found.heads,
        scale=one.scale * one.query.scale * one.key.scale,
    )
    if len(set(sizes)) > 1:
        node.attribute.append(helper.make_attribute("qkv_hidden_sizes", sizes))
    graph.graph.node.append(node)
    # Type inference knows nothing of this operator, and quantizers ask for the type of what they change.
    graph.graph.value_info.append(helper.make_tensor_value_info(f"{name}_out", onnx.TensorProto.FLOAT, None))
    _replace(graph, found, f"{name}_out")


def _replace(graph: onnx.ModelProto, found: Layout, out: str) -> None:
    """Let what read the merged heads read the fused operator's output, in the layout they had."""
    steps = []
    if found.sequence_first:
        steps.append(helper.make_node("Transpose", [out], [f"{out}_turned"], perm=[1, 0, 2]))
        out = f"{out}_turned"
    if len(found.merged_shape) == 2:
        shape = numpy_helper.from_array(np.array([0, 0, *found.merged_shape], np.int64), f"{out}_shape")
        graph.graph.initializer.append(shape)
        steps.append(helper.make_node("Reshape", [out, shape.name], [f"{out}_heads"]))
        out = f"{out}_heads"
    for node in graph.graph.node:
        node.input[:] = [out if name == found.merged else name for name in node.input]
    graph.graph.node.extend(steps)


def _mask_input(graph: onnx.ModelProto, mask: Mask, name: str) -> str:
    """Add nodes that turn [batch, heads or 1, 1, positions] into the operator's integer mask [batch, positions]; one
    is seen."""
    constants = {"limit": np.float32(MASKED), "first": np.int64(0), "shape": np.array([0, -1], np.int64)}
    added = {part: numpy_helper.from_array(np.asarray(values), f"{name}_{part}") for part, values in constants.items()}
    graph.graph.initializer.extend(added.values())
    step = helper.make_node
    kept = (
        step("Greater", [mask.name, f"{name}_limit"], [f"{name}_kept"])
        if mask.kind == "bias"
        else step("Not", [mask.name], [f"{name}_kept"])
    )
    graph.graph.node.extend(
        (
            kept,
            step("Gather", [f"{name}_kept", f"{name}_first"], [f"{name}_head"], axis=1),
            step("Cast", [f"{name}_head"], [f"{name}_integer"], to=onnx.TensorProto.INT32),
            step("Reshape", [f"{name}_integer", f"{name}_shape"], [name]),
        )
    )
    return name
