"""8-bit TFLite models with ai-edge-quantizer: weights only, dynamic, or weights and activations ahead of time."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np

from edge_compression.calibrate import Tensors, collect
from edge_compression.contract import Applied, Context
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
        tool = quantizer.Quantizer(bytearray(with_signature(model)), recipes[self.mode]())
        for boundary in BOUNDARIES if self.mode == "static" else ():
            tool.update_quantization_recipe(".*", boundary, algorithm_key="no_quantize")
        ranges = tensor_ranges(model, context) if tool.need_calibration else None
        result = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
        return Applied(model=bytes(result.quantized_model), changed={"mode": self.mode})


def with_signature(model: bytes) -> bytes:
    """Return the model with a signature over the first graph's inputs and outputs if it has none: the quantizer
    looks ranges up by signature, which older converters did not write."""
    import flatbuffers  # type: ignore[import-untyped]
    from ai_edge_litert import schema_py_generated as schema

    parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    if parsed.signatureDefs:
        return model
    graph = parsed.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey = b"serving_default"
    signature.subgraphIndex = 0
    signature.inputs = [_named_tensor(schema, graph, index) for index in graph.inputs]
    signature.outputs = [_named_tensor(schema, graph, index) for index in graph.outputs]
    parsed.signatureDefs = [signature]
    builder = flatbuffers.Builder(len(model))
    builder.Finish(parsed.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _named_tensor(schema: Any, graph: Any, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = graph.tensors[index].name, index
    return entry


def tensor_ranges(model: bytes, context: Context) -> dict[str, Any]:
    """Return the extremes of every float tensor that is not a constant, in the quantizer's form, streamed.

    Its own calibration averages the extremes of single samples (weight 0.95 for what is known), which clips whatever
    is larger than usual: the confident answers.
    """
    found = collect(lambda: _activations(model, context), histograms=False)
    return {name: {"min": np.array([[r.low]]), "max": np.array([[r.high]])} for name, r in found.items()}


def _activations(model: bytes, context: Context) -> Iterator[Tensors]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Delegates keep inner tensors to themselves, and without preservation their memory is shared.
    interpreter = Interpreter(
        model_content=model,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    fed = interpreter.get_input_details()[0]["index"]
    inner = _computed(model, interpreter)
    for feeds in context.calibration():
        interpreter.set_tensor(fed, next(iter(feeds.values())))
        interpreter.invoke()
        yield {name: interpreter.get_tensor(index) for index, name in inner.items()}


def _computed(model: bytes, interpreter: Any) -> dict[int, str]:
    """Return the names of the main graph's float inputs and of what its operators compute in float, by index."""
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0)).subgraphs[0]
    computed = {int(index) for index in graph.inputs}
    computed.update(int(index) for operator in graph.operators for index in operator.outputs)
    details = interpreter.get_tensor_details()
    return {one["index"]: one["name"] for one in details if one["index"] in computed and one["dtype"] == np.float32}
