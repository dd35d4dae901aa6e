"""8-bit TFLite models with ai-edge-quantizer: weights only, dynamic, or weights and activations ahead of time."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from msgspec import Meta

from edge_compression.pass_api import EIGHT_BIT_FLOOR, Applied, Changes, Context, NothingToDoError
from edge_compression.quantization.calibration import HISTOGRAMS, CalibrationRange, Calibrator, Tensors, choose, collect
from edge_compression.tflite_tools.fold import Packed, folded, packed_again
from edge_compression.tflite_tools.graph import activations, custom_operators, is_constant, load, save
from edge_compression.tflite_tools.layers import tflite_layers
from edge_compression.tflite_tools.sensitivity import kept_in_float, layer_noises
from edge_contracts.codec import StrictRecord
from edge_contracts.errors import MissingExtraError
from edge_contracts.manifest import Format

BOUNDARIES = ("INPUT", "OUTPUT")
"""The quantizer's names for what goes in and comes out. Left to itself it makes a static model's 8-bit integers, so
that samples mapped for the float original would be cast into them without a scale."""


class TfliteInt8(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="tflite_int8"):
    """Quantize a TFLite model per channel. `weight_only` computes in float, `dynamic` quantizes activations at run
    time, `static` uses ranges from the calibration samples, chosen by `calibrator`; inputs and outputs stay in float,
    and so does the softmax that makes an answer. `percentile`: share of values kept by that calibrator, in percent.
    `sqnr`: the layers that cost most stay in float until the rounding of weights leaves every output so many decibels
    of signal to noise; none do if not given."""

    format: ClassVar[Format] = "tflite"
    quantizes: ClassVar[bool] = True

    mode: Literal["weight_only", "dynamic", "static"] = "static"
    calibrator: Calibrator = "minmax"
    percentile: Annotated[float, Meta(gt=50.0, le=100.0)] = 99.99
    sqnr: Annotated[float, Meta(gt=0.0, le=60.0)] | None = None

    def apply(self, model: bytes, context: Context) -> Applied:
        if importlib.util.find_spec("ai_edge_quantizer") is None:
            raise MissingExtraError("compress-tflite", "ai-edge-quantizer")
        unpacked, halves = folded(model)
        source = prepared(unpacked)
        if _stored_in_integers(load(source)):
            raise NothingToDoError("the model's weights are 8-bit integers already; its own scales are kept")
        made = self._quantized(source, context, ())
        changed: Changes = {"mode": self.mode}
        if self.sqnr is not None:
            layers = list(tflite_layers(load(source), load(made)))
            noises = layer_noises(source, layers, context, sqnr=self.sqnr)
            loud = kept_in_float(noises)
            changed["layers_in_float"] = len(loud)
            if loud:
                made = self._quantized(source, context, _read_by(load(source), loud))
        result = load(made)
        if not load(model).signatureDefs:
            result.signatureDefs = None
        stored = len(_stored_in_integers(result))
        if not stored:
            raise NothingToDoError(_why_nothing(load(source)))
        changed["constants_in_integers"] = stored
        if halves:
            changed[EIGHT_BIT_FLOOR] = round(_half_values(load(model), halves) / len(model), 3)
        return Applied(model=packed_again(save(result), model, halves), changed=changed)

    def _quantized(self, source: bytes, context: Context, kept: tuple[str, ...]) -> bytes:
        """Return the model quantized but for the operators whose first output has one of these names."""
        from ai_edge_quantizer import quantizer, recipe

        recipes = {
            "weight_only": recipe.weight_only_wi8_afp32,
            "dynamic": recipe.dynamic_wi8_afp32,
            "static": recipe.static_wi8_ai8,
        }
        tool = quantizer.Quantizer(bytearray(source), recipes[self.mode]())
        if self.mode == "static":
            for scope, kind in left_in_float(source):
                tool.update_quantization_recipe(scope, kind, algorithm_key="no_quantize")
        for name in kept:
            tool.update_quantization_recipe(f"^{re.escape(name)};?$", "*", algorithm_key="no_quantize")
        ranges = self._ranges(source, context) if tool.need_calibration else None
        quantized = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
        return bytes(quantized.quantized_model)

    def _ranges(self, model: bytes, context: Context) -> dict[str, Any]:
        """Return the range of every float tensor that is not a constant, in the quantizer's form.

        Its own calibration averages the extremes of single samples (weight 0.95 for what is known), which clips
        whatever is larger than usual: the confident answers.
        """
        found = tensor_ranges(model, context, histograms=self.calibrator in HISTOGRAMS)
        chosen = {name: choose(one, self.calibrator, percentile=self.percentile) for name, one in found.items()}
        return {name: {"min": np.array([[low]]), "max": np.array([[high]])} for name, (low, high) in chosen.items()}


def _half_values(model: Any, halves: tuple[Packed, ...]) -> int:
    """Return how many values the float16 constants have, a byte each in 8 bits."""
    return sum(int(np.prod(model.subgraphs[0].tensors[pair.half].shape)) for pair in halves)


def _stored_in_integers(model: Any) -> list[str]:
    """Return the names of the constants that are 8-bit integers with a scale."""
    from ai_edge_litert import schema_py_generated as schema

    return [
        str(tensor.name)
        for graph in model.subgraphs
        for tensor in graph.tensors
        if tensor.type == schema.TensorType.INT8
        and is_constant(model, tensor)
        and tensor.quantization is not None
        and tensor.quantization.scale is not None
    ]


def _read_by(model: Any, weights: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of what the operators make that read these weights."""
    graph, wanted = model.subgraphs[0], {int(index) for index in weights}
    return tuple(
        graph.tensors[int(operator.outputs[0])].name.decode()
        for operator in graph.operators
        if wanted & {int(index) for index in operator.inputs}
    )


def _why_nothing(model: Any) -> str:
    custom = custom_operators(model)
    of = f", it has the custom operators {', '.join(custom)}" if custom else ""
    return f"no weights of an operator that the quantizer knows{of}"


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
