"""8-bit TFLite models with ai-edge-quantizer: weights only, dynamic, or weights and activations ahead of time."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from msgspec import Meta

from edge_compression.pass_api import Applied, Context
from edge_compression.quantization.calibration import HISTOGRAMS, CalibrationRange, Calibrator, Tensors, choose, collect
from edge_compression.tflite_tools.graph import activations, load, save
from edge_contracts.codec import StrictRecord
from edge_contracts.errors import MissingExtraError
from edge_contracts.manifest import Format

BOUNDARIES = ("INPUT", "OUTPUT")
"""The quantizer's names for what goes in and comes out. Left to itself it makes a static model's 8-bit integers, so
that samples mapped for the float original would be cast into them without a scale."""


class TfliteInt8(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="tflite_int8"):
    """Quantize a TFLite model per channel. `weight_only` computes in float, `dynamic` quantizes activations at run
    time, `static` uses ranges from the calibration samples, chosen by `calibrator`; inputs and outputs stay in float,
    and so does the softmax that makes an answer. `percentile`: share of values kept by that calibrator, in percent."""

    format: ClassVar[Format] = "tflite"
    quantizes: ClassVar[bool] = True

    mode: Literal["weight_only", "dynamic", "static"] = "static"
    calibrator: Calibrator = "minmax"
    percentile: Annotated[float, Meta(gt=50.0, le=100.0)] = 99.99

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
        if self.mode == "static":
            for scope, kind in left_in_float(source):
                tool.update_quantization_recipe(scope, kind, algorithm_key="no_quantize")
        ranges = self._ranges(source, context) if tool.need_calibration else None
        quantized = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
        result = load(bytes(quantized.quantized_model))
        if not load(model).signatureDefs:
            result.signatureDefs = None
        return Applied(model=save(result), changed={"mode": self.mode})

    def _ranges(self, model: bytes, context: Context) -> dict[str, Any]:
        """Return the range of every float tensor that is not a constant, in the quantizer's form.

        Its own calibration averages the extremes of single samples (weight 0.95 for what is known), which clips
        whatever is larger than usual: the confident answers.
        """
        found = tensor_ranges(model, context, histograms=self.calibrator in HISTOGRAMS)
        chosen = {name: choose(one, self.calibrator, percentile=self.percentile) for name, one in found.items()}
        return {name: {"min": np.array([[low]]), "max": np.array([[high]])} for name, (low, high) in chosen.items()}


def left_in_float(model: bytes) -> Iterator[tuple[str, str]]:
    """Yield what a static model keeps in float, as the quantizer takes it: a pattern of tensor names and a kind of
    operator. Of 8 bits a softmax leaves probabilities in steps of 1/256, too coarse for what devices do by them."""
    for boundary in BOUNDARIES:
        yield ".*", boundary
    graph = load(model).subgraphs[0]
    for index in graph.outputs:
        yield f"^{re.escape(graph.tensors[index].name.decode())}", "SOFTMAX"


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


def tensor_ranges(model: bytes, context: Context, *, histograms: bool) -> dict[str, CalibrationRange]:
    """Return what values every float tensor of the main graph took that is not a constant, by name, streamed."""
    names = _computed(model)

    def samples() -> Iterator[Tensors]:
        for values in activations(model, context, names):
            yield {names[index]: value for index, value in values.items()}

    return collect(samples, histograms=histograms)


def _computed(model: bytes) -> dict[int, str]:
    """Return the names of the main graph's float inputs and of what its operators compute in float, by index."""
    from ai_edge_litert import schema_py_generated as schema

    graph = load(model).subgraphs[0]
    computed = {int(index) for index in graph.inputs}
    computed.update(int(index) for operator in graph.operators for index in operator.outputs)
    tensors = {index: graph.tensors[index] for index in sorted(computed)}
    return {index: one.name.decode() for index, one in tensors.items() if one.type == schema.TensorType.FLOAT32}
