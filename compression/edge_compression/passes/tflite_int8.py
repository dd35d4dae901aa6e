"""8-bit TFLite models with ai-edge-quantizer: weights only, dynamic, or weights and activations ahead of time."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np

from edge_compression.calibrate import Tensors, collect
from edge_compression.contract import Applied, Context
from edge_compression.tflite_graph import activations, load, save
from edge_contracts.codec import StrictRecord
from edge_contracts.errors import MissingExtraError
from edge_contracts.manifest import Format

BOUNDARIES = ("INPUT", "OUTPUT")
"""The quantizer's names for what goes in and comes out. Left to itself it makes a static model's 8-bit integers, so
that samples mapped for the float original would be cast into them without a scale."""


class TfliteInt8(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="tflite_int8"):
    """Quantise a TFLite model per channel. `weight_only` computes in float, `dynamic` quantises activations at run
    time, `static` uses ranges from the calibration samples; inputs and outputs stay in float."""

    format: ClassVar[Format] = "tflite"
    quantises: ClassVar[bool] = True

    mode: Literal["weight_only", "dynamic", "static"] = "static"

    def apply(self, model: bytes, context: Context) -> Applied:
        if importlib.util.find_spec("ai_edge_quantizer") is None:
            raise MissingExtraError("compress-tflite", "ai-edge-quantizer")
        from ai_edge_quantizer import quantizer, recipe

        recipes = {
            "weight_only": recipe.weight_only_wi8_afp32,
            "dynamic": recipe.dynamic_wi8_afp32,
            "static": recipe.static_wi8_ai8,
        }
        source = prepared(model)
        tool = quantizer.Quantizer(bytearray(source), recipes[self.mode]())
        for boundary in BOUNDARIES if self.mode == "static" else ():
            tool.update_quantization_recipe(".*", boundary, algorithm_key="no_quantize")
        ranges = tensor_ranges(source, context) if tool.need_calibration else None
        quantised = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
        result = load(bytes(quantised.quantized_model))
        if not load(model).signatureDefs:
            result.signatureDefs = None
        return Applied(model=save(result), changed={"mode": self.mode})


def prepared(model: bytes) -> bytes:
    """Return the model as the quantizer takes it, which looks tensors up by name and ranges by signature: names for
    tensors without one, and a signature over the first graph's inputs and outputs, which older converters did not
    write, if it has none."""
    from ai_edge_litert import schema_py_generated as schema

    parsed = load(model)
    for place, graph in enumerate(parsed.subgraphs):
        for index, tensor in enumerate(graph.tensors):
            tensor.name = tensor.name or f"graph{place}/tensor{index}".encode()
    if not parsed.signatureDefs:
        graph = parsed.subgraphs[0]
        signature = schema.SignatureDefT()
        signature.signatureKey = b"serving_default"
        signature.subgraphIndex = 0
        signature.inputs = [_named_tensor(schema, graph, index) for index in graph.inputs]
        signature.outputs = [_named_tensor(schema, graph, index) for index in graph.outputs]
        parsed.signatureDefs = [signature]
    return save(parsed)


def _named_tensor(schema: Any, graph: Any, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = graph.tensors[index].name, index
    return entry


def tensor_ranges(model: bytes, context: Context) -> dict[str, Any]:
    """Return the extremes of every float tensor that is not a constant, in the quantizer's form, streamed.

    Its own calibration averages the extremes of single samples (weight 0.95 for what is known), which clips whatever
    is larger than usual: the confident answers.
    """
    names = _computed(model)

    def samples() -> Iterator[Tensors]:
        for values in activations(model, context, names):
            yield {names[index]: value for index, value in values.items()}

    found = collect(samples, histograms=False)
    return {name: {"min": np.array([[r.low]]), "max": np.array([[r.high]])} for name, r in found.items()}


def _computed(model: bytes) -> dict[int, str]:
    """Return the names of the main graph's float inputs and of what its operators compute in float, by index."""
    from ai_edge_litert import schema_py_generated as schema

    graph = load(model).subgraphs[0]
    computed = {int(index) for index in graph.inputs}
    computed.update(int(index) for operator in graph.operators for index in operator.outputs)
    tensors = {index: graph.tensors[index] for index in sorted(computed)}
    return {index: one.name.decode() for index, one in tensors.items() if one.type == schema.TensorType.FLOAT32}
