"""Low rank: a large matrix product becomes two small ones where that saves weights and the outputs hardly notice.

The factors are in `edge_compression.pruning.low_rank`, the layers' inputs are summed by
`edge_compression.pruning.refit`.
"""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any, ClassVar

import numpy as np
import onnx
from msgspec import Meta
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge_compression.onnx_tools.graph import load, save
from edge_compression.pass_api import Applied, Context, PassError
from edge_compression.pruning.affine_layers import Affine, affine_layers
from edge_compression.pruning.low_rank import factors, smallest_rank
from edge_compression.pruning.refit import in_blocks, layer_inputs
from edge_compression.quantization.input_moments import as_rows
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format

Array = NDArray[Any]

MAX_SAMPLES = 1024
"""Samples whose inputs are summed: beyond it the factors no longer change."""

WORTH = 0.8
"""Share of a layer's weights that its factors may have: below that two products are not slower than one."""


class LowRank(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="low_rank"):
    """Factorize Gemm and MatMul layers. `loss`: share of a layer's squared outputs that may be lost, measured on the
    calibration samples; the rank is the smallest that loses no more. Layers where that does not pay are left."""

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = False

    loss: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.01

    def apply(self, model: bytes, context: Context) -> Applied:
        graph = load(model)
        tried = [layer for layer in affine_layers(graph).values() if layer.node.op_type != "Conv"]
        ranks = [str(rank) for layer in tried if (rank := self._factorize(graph, layer, context))]
        if not ranks:
            raise PassError(f"no matrix product loses at most {self.loss:g} at a rank that pays")
        made = save(graph)
        saved = len(model) - len(made)
        return Applied(model=made, changed={"layers": len(ranks), "ranks": " ".join(ranks), "bytes_saved": saved})

    def _factorize(self, graph: onnx.ModelProto, layer: Affine, context: Context) -> int:
        """Replace a layer by two if that pays; return the rank, 0 if the layer stays."""
        rows = as_rows(layer.node, layer.weights)[0].astype(np.float64)
        outer, inner, losses = factors(rows, _moments(graph, layer, context))
        rank = smallest_rank(losses, self.loss)
        if rank * sum(rows.shape) > WORTH * rows.size:
            return 0
        _replace(graph, layer.node, outer[:, :rank], inner[:rank])
        return rank


def _moments(graph: onnx.ModelProto, layer: Affine, context: Context) -> Array:
    """Return the sum of x x^T over the layer's inputs x, without the one that a bias appends."""
    columns = as_rows(layer.node, layer.weights).shape[2]
    source = layer_inputs(graph, layer)
    total = np.zeros((columns, columns))
    for (taken,) in in_blocks((source(feeds)[:, :columns],) for feeds in islice(context.calibration(), MAX_SAMPLES)):
        total += taken.T @ taken
    return total


def _replace(graph: onnx.ModelProto, node: onnx.NodeProto, outer: Array, inner: Array) -> None:
    """Put a MatMul with the inner factor before the layer, which keeps its place, its output and its bias."""
    place = next(index for index, one in enumerate(graph.graph.node) if one.output[0] == node.output[0])
    between, first = f"{node.output[0]}_inner", f"{node.output[0]}_inner_weight"
    own = graph.graph.node[place]
    second = f"{node.output[0]}_outer_weight"
    turned = own.op_type == "Gemm" and any(one.name == "transB" and one.i for one in own.attribute)
    made = {first: inner.T, second: outer if turned else outer.T}
    for name, values in made.items():
        exact = np.ascontiguousarray(values, dtype=np.float32)
        graph.graph.initializer.append(numpy_helper.from_array(exact, name))
    graph.graph.node.insert(place, helper.make_node("MatMul", [own.input[0], first], [between], name=between))
    replaced = graph.graph.node[place + 1]
    old = replaced.input[1]
    replaced.input[0], replaced.input[1] = between, second
    kept = [tensor for tensor in graph.graph.initializer if tensor.name != old]
    copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(copies)
