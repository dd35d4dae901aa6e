"""Smoothing: outliers of normalized activations moved into the weights that read them, the function left as it is.

Behind a layer norm a few features are many times larger than the others, and one scale for all of them leaves the
others few levels. Dividing the norm's scale and bias by a factor a feature and multiplying the readers' weights with it
shares the difficulty (SmoothQuant, Xiao et al. 2022, arXiv:2211.10438).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
import onnx
from msgspec import Meta
from numpy.typing import NDArray
from onnx import numpy_helper

from edge_compression.onnx_tools.graph import attributes, initializers, load, save, session, with_outputs
from edge_compression.onnx_tools.graph_index import GraphIndex
from edge_compression.pass_api import Applied, Context, PassError
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format

Array = NDArray[Any]
READERS = ("MatMul", "Gemm", "Attention")


class Smooth(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="smooth"):
    """Smooth every LayerNormalization that only matrix products with constant weights read. `strength`: share of the
    outliers that the weights take over, the paper's alpha. Raises PassError when there is none."""

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = False

    strength: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5

    def apply(self, model: bytes, context: Context) -> Applied:
        graph = load(model)
        view = GraphIndex(graph)
        norms = [node for node in view.nodes if node.op_type == "LayerNormalization" and _readers(view, node)]
        if not norms:
            raise PassError("no layer norm that only matrix products read")
        reaches = _reaches(graph, [node.output[0] for node in norms], context)
        largest = 1.0
        for node, reach in zip(norms, reaches, strict=True):
            weights = [np.asarray(view.constant(reader.input[1])) for reader in _readers(view, node)]
            axes = [_input_axis(reader) for reader in _readers(view, node)]
            taken = np.max([_reach(one, axis) for one, axis in zip(weights, axes, strict=True)], axis=0)
            factor = _factor(reach, taken, self.strength)
            _move(graph, node, _readers(view, node), factor)
            largest = max(largest, float(factor.max() / factor.min()))
        return Applied(model=save(graph), changed={"norms": len(norms), "largest_ratio": round(largest, 3)})


def _readers(view: GraphIndex, norm: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return the matrix products that read a norm if nothing else does, its parameters and their weights are constants
    of their own and the last axis is normalized; else nothing."""
    readers = view.consumers(norm.output[0])
    own = [*norm.input[1:], *(reader.input[1] for reader in readers if len(reader.input) > 1)]
    alone = all(view.constant(name) is not None and len(view.consumers(name)) == 1 for name in own)
    products = all(reader.op_type in READERS and reader.input[0] == norm.output[0] for reader in readers)
    fits = alone and products and norm.output[0] not in view.outputs
    plain = fits and all(np.asarray(view.constant(reader.input[1])).ndim == 2 for reader in readers)
    return readers if plain and np.asarray(view.constant(norm.input[1])).ndim == 1 else []


def _input_axis(reader: onnx.NodeProto) -> int:
    return 1 if reader.op_type == "Gemm" and attributes(reader).get("transB", 0) else 0


def _reach(weights: Array, axis: int) -> Array:
    return np.asarray(np.abs(weights).max(axis=1 - axis))


def _reaches(graph: onnx.ModelProto, names: list[str], context: Context) -> list[Array]:
    """Return the largest magnitude of each feature of each tensor over the calibration samples."""
    opened = session(save(with_outputs(graph, names)))
    found: list[Array] = []
    for feeds in context.calibration():
        values = opened.run(names, feeds)
        now = [np.abs(one).reshape(-1, one.shape[-1]).max(axis=0) for one in values]
        found = [np.maximum(old, new) for old, new in zip(found, now, strict=True)] if found else now
    if not found:
        raise PassError("no calibration sample", subject="calib_x")
    return found


def _factor(reach: Array, taken: Array, strength: float) -> Array:
    """Return the paper's factor of each feature, one where a feature is never used; their geometric mean is one."""
    used = (reach > 0) & (taken > 0)
    raw = np.where(used, np.where(used, reach, 1.0) ** strength / np.where(used, taken, 1.0) ** (1 - strength), 1.0)
    return np.asarray(raw / np.exp(np.log(raw).mean()), dtype=np.float32)


def _move(graph: onnx.ModelProto, norm: onnx.NodeProto, readers: list[onnx.NodeProto], factor: Array) -> None:
    constants = initializers(graph)
    for name in norm.input[1:]:
        _set(constants[name], numpy_helper.to_array(constants[name]) / factor)
    for reader in readers:
        shape = (1, -1) if _input_axis(reader) else (-1, 1)
        weights = constants[reader.input[1]]
        _set(weights, numpy_helper.to_array(weights) * factor.reshape(shape))


def _set(constant: onnx.TensorProto, values: Array) -> None:
    constant.CopyFrom(numpy_helper.from_array(values.astype(np.float32), constant.name))
