"""Finding self-attention in a graph by what it computes, whatever operators an exporter spelled it with.

A Softmax between two products of computed matrices is a candidate. Exporters differ in how they cut the projections
into heads (Split, Gather, Slice, reshapes in every order), so that part is not matched: it is run on a tensor that
holds its own indices, which shows what goes where. Here: candidates and their layout. Writing the fused operator is in
`edge_compression.passes.fuse_transformer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_compression.onnx_tools.graph import attributes, save, session, with_outputs
from edge_compression.onnx_tools.graph_index import GraphIndex
from edge_compression.pass_api import Feeds

Array = NDArray[Any]

LAYOUT = frozenset(
    ("Reshape", "Transpose", "Gather", "Split", "Slice", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast")
)
"""Operators that only move values. Cast is one here because it moves exact integers in the probing run."""

MASKED = -1e3
"""A bias at most this hides a position: e to this is zero in every float type."""

MAX_STEPS = 16
"""Operators followed between a projection and a product; real exports have at most eight."""


@dataclass(frozen=True, kw_only=True)
class Operand:
    """A factor of one of the two products: the projection it was cut from and the scale it got on the way."""

    name: str
    root: str
    scale: float


@dataclass(frozen=True, kw_only=True)
class Mask:
    """What hides positions: a tensor added to the scores, or a condition of a Where that replaces them."""

    name: str
    kind: Literal["bias", "condition"]


@dataclass(frozen=True, kw_only=True)
class AttentionCandidate:
    """Softmax(q k^T scale + mask) v by tensor names; `result` is the second product's output."""

    query: Operand
    key: Operand
    value: Operand
    scale: float
    mask: Mask | None
    result: str


@dataclass(frozen=True, kw_only=True)
class Projection:
    """x W + b: the input's name, W [inputs, outputs] and b [outputs]."""

    source: str
    weights: Array
    bias: Array


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where heads lie in their projections: columns [heads * size] for each of query, key and value; the tensor in
    which the heads are side by side again; whether the sequence is the first axis there."""

    heads: int
    columns: tuple[Array, Array, Array]
    merged: str
    merged_shape: tuple[int, ...]
    sequence_first: bool


def candidates(view: GraphIndex) -> list[AttentionCandidate]:
    """Return all attention-like places of a graph, in the order of its nodes."""
    found = (_candidate(view, node) for node in view.nodes if node.op_type == "Softmax")
    return [one for one in found if one is not None]


def _candidate(view: GraphIndex, softmax: onnx.NodeProto) -> AttentionCandidate | None:
    product = view.only_consumer(softmax.output[0])
    if product is None or product.op_type != "MatMul" or product.input[0] != softmax.output[0]:
        return None
    scores, scale, mask = _scores(view, softmax.input[0])
    if scores is None:
        return None
    query, key, value = (operand(view, name) for name in (*scores.input, product.input[1]))
    return AttentionCandidate(query=query, key=key, value=value, scale=scale, mask=mask, result=product.output[0])


def _scores(view: GraphIndex, name: str) -> tuple[onnx.NodeProto | None, float, Mask | None]:
    """Follow a Softmax's input up to the product of computed matrices; return it, the scale and the mask between."""
    scale, mask = 1.0, None
    for _ in range(MAX_STEPS):
        node = view.producer(name)
        if node is None:
            break
        if node.op_type == "MatMul":
            return (node if all(view.constant(one) is None for one in node.input) else None), scale, mask
        factor = _factor(view, node)
        if factor is not None:
            name, scale = factor[0], scale * factor[1]
            continue
        masked = _masked(view, node)
        # A scale after the mask would have to be applied to the mask as well.
        if masked is None or mask is not None or scale != 1.0:
            break
        name, mask = masked
    return None, scale, mask


def _masked(view: GraphIndex, node: onnx.NodeProto) -> tuple[str, Mask] | None:
    if node.op_type == "Where":
        fill = view.scalar(node.input[1])
        return (node.input[2], Mask(name=node.input[0], kind="condition")) if (fill or 0.0) <= MASKED else None
    if node.op_type != "Add":
        return None
    for scores, bias in (tuple(node.input), tuple(reversed(node.input))):
        if _comes_from_product(view, scores):
            return scores, Mask(name=bias, kind="bias")
    return None


def _comes_from_product(view: GraphIndex, name: str) -> bool:
    for _ in range(MAX_STEPS):
        node = view.producer(name)
        if node is None:
            return False
        if node.op_type == "MatMul":
            return True
        factor = _factor(view, node)
        if factor is None:
            return False
        name = factor[0]
    return False


def _factor(view: GraphIndex, node: onnx.NodeProto) -> tuple[str, float] | None:
    """Return the input and the factor of a node that multiplies by, or divides by, one constant number."""
    if node.op_type not in ("Mul", "Div"):
        return None
    split = view.with_constant(node)
    if split is None or split[1].size != 1 or (node.op_type == "Div" and split[0] != node.input[0]):
        return None
    value = float(split[1].reshape(()))
    return split[0], value if node.op_type == "Mul" else 1.0 / value


def operand(view: GraphIndex, name: str) -> Operand:
    """Follow a tensor up through layout and scales to what was computed last."""
    root, scale = name, 1.0
    for _ in range(MAX_STEPS):
        node = view.producer(root)
        if node is None:
            break
        factor = _factor(view, node)
        if factor is not None:
            root, scale = factor[0], scale * factor[1]
        elif node.op_type in LAYOUT and view.constant(node.input[0]) is None:
            root = node.input[0]
        else:
            break
    return Operand(name=name, root=root, scale=scale)


def projection(view: GraphIndex, root: str) -> Projection | None:
    """Return the product with constant weights, and its bias, that makes a tensor; None if something else does.

    A Gemm takes rows of all positions: what was reshaped into them is the source.
    """
    node = view.producer(root)
    if node is not None and node.op_type == "Gemm":
        return _gemm(view, node)
    bias = None
    if node is not None and node.op_type == "Add":
        split = view.with_constant(node)
        node, bias = (None, None) if split is None else (view.producer(split[0]), split[1])
    if node is None or node.op_type != "MatMul":
        return None
    return _projection(node.input[0], view.constant(node.input[1]), bias)


def _gemm(view: GraphIndex, node: onnx.NodeProto) -> Projection | None:
    known = attributes(node)
    weights = view.constant(node.input[1])
    bias = view.constant(node.input[2]) if len(node.input) > 2 else None
    rows = view.producer(node.input[0])
    scaled = known.get("alpha", 1.0) != 1.0 or known.get("beta", 1.0) != 1.0 or known.get("transA", 0)
    if scaled or weights is None or rows is None or rows.op_type != "Reshape":
        return None
    return _projection(rows.input[0], weights.T if known.get("transB", 0) else weights, bias)


def _projection(source: str, weights: Array | None, bias: Array | None) -> Projection | None:
    if weights is None or weights.ndim != 2 or weights.dtype != np.float32:
        return None
    bias = np.zeros(weights.shape[1], np.float32) if bias is None else bias
    return Projection(source=source, weights=weights, bias=bias.reshape(-1)) if bias.size == weights.shape[1] else None


def merging(view: GraphIndex, name: str) -> list[str]:
    """Return the tensors that the second product's output becomes by layout alone, in order."""
    chain = [name]
    for _ in range(MAX_STEPS):
        node = view.only_consumer(chain[-1])
        if node is None or node.op_type not in LAYOUT or node.input[0] != chain[-1]:
            break
        chain.append(node.output[0])
    return chain


def record(model: onnx.ModelProto, names: list[str], feeds: Feeds) -> dict[str, Array]:
    """Return the values of inner tensors for one sample."""
    wanted = list(dict.fromkeys(names))
    opened = session(save(with_outputs(model, wanted)))
    return dict(zip(wanted, opened.run(wanted, feeds), strict=True))


def probe(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]], names: list[str], feeds: Feeds) -> Any:
    """Return the values of `names` when each tensor of `shapes` holds its own flat indices and scales do nothing."""
    view = GraphIndex(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        factor = _factor(view, node)
        if factor is not None:
            node.op_type = "Identity"
            node.input[:] = [factor[0]]
            del node.attribute[:]
        node.output[:] = [f"{name}__cut" if name in shapes else name for name in node.output]
    copy.graph.input.extend(onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items())
    del copy.graph.value_info[:]
    indices = {name: np.arange(np.prod(shape), dtype=np.float32).reshape(shape) for name, shape in shapes.items()}
    return record(copy, names, {**feeds, **indices})


def layout(
    one: AttentionCandidate, chain: list[str], probed: dict[str, Array], widths: tuple[int, int, int]
) -> Layout | None:
    """Return how heads lie in the projections, None if they are not cut and merged head by head.

    `probed` holds what `probe` returned for the operands and for `chain`, the tensors after the second product, with
    one sample; `widths` are the columns of the query's, key's and value's projections.
    """
    query, key, value = (probed[part.name] for part in (one.query, one.key, one.value))
    if not query.ndim == key.ndim == value.ndim == 4 or query.shape[0] != 1:
        return None
    parts = zip((query, key.swapaxes(2, 3), value), widths, strict=True)
    columns = [found for indices, width in parts if (found := _columns(indices, width)) is not None]
    merged = _merged(value, chain, probed)
    if len(columns) != 3 or merged is None:
        return None
    shape = probed[merged].shape
    return Layout(
        heads=value.shape[1],
        columns=(columns[0], columns[1], columns[2]),
        merged=merged,
        merged_shape=shape[2:],
        sequence_first=shape[1] == 1 and shape[0] > 1,
    )


def _merged(value: Array, chain: list[str], probed: dict[str, Array]) -> str | None:
    """Return the last tensor of the chain that holds the heads of each position side by side."""
    heads, length, size = value.shape[1:]
    expected = np.arange(heads * length * size).reshape(heads, length, size).swapaxes(0, 1).ravel()
    for name in reversed(chain):
        shape = probed[name].shape
        fits = shape[:2] in ((1, length), (length, 1)) and shape[2:] in ((heads * size,), (heads, size))
        if fits and (probed[name].ravel() == expected).all():
            return name
    return None


def _columns(indices: Array, width: int) -> Array | None:
    """Return the column of each feature of each head, [heads * size], from probed [1, heads, sequence, size]."""
    flat = indices[0].astype(np.int64)
    rows, columns = np.divmod(flat, width)
    same_rows = (rows == np.arange(flat.shape[1])[None, :, None]).all()
    same_columns = (columns == columns[:, :1]).all()
    return columns[:, 0].reshape(-1) if same_rows and same_columns else None
