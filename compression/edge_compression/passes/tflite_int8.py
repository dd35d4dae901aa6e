"""8-bit TFLite models with ai-edge-quantizer: weights only, dynamic, or weights and activations ahead of time."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from edge_compression.contract import Applied, Context, Feeds
from edge_contracts.codec import StrictRecord
from edge_contracts.errors import MissingExtraError
from edge_contracts.manifest import Format


class TfliteInt8(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="tflite_int8"):
    """Quantise a TFLite model per channel. `weight_only` computes in float, `dynamic` quantises activations at run
    time, `static` uses ranges from the calibration samples; inputs and outputs stay in float."""

    format: ClassVar[Format] = "tflite"
    quantises: ClassVar[bool] = True

    mode: Literal["weight_only", "dynamic", "static"] = "static"

    def apply(self, model: bytes, context: Context) -> Applied:
        if importlib.util.find_spec("ai_edge_quantizer") is None:
            raise MissingExtraError("compress", "ai-edge-quantizer")
        from ai_edge_quantizer import quantizer, recipe

        recipes = {
            "weight_only": recipe.weight_only_wi8_afp32,
            "dynamic": recipe.dynamic_wi8_afp32,
            "static": recipe.static_wi8_ai8,
        }
        named = with_signature(model)
        tool = quantizer.Quantizer(bytearray(named), recipes[self.mode]())
        ranges = tool.calibrate(_signature_feeds(named, context), num_threads=1) if tool.need_calibration else None
        result = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
        return Applied(model=bytes(result.quantized_model), changed={"mode": self.mode})


def with_signature(model: bytes) -> bytes:
    """Return the model with a signature over the first graph's inputs and outputs if it has none: the quantizer
    calibrates through signatures, which older converters did not write."""
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


@dataclass(frozen=True)
class _SignatureFeeds:
    """Calibration feeds under a signature's argument name; the quantizer goes over them more than once."""

    context: Context
    argument: str

    def __iter__(self) -> Iterator[Feeds]:
        for feeds in self.context.calibration():
            yield {self.argument: next(iter(feeds.values()))}


def _signature_feeds(model: bytes, context: Context) -> dict[str, _SignatureFeeds]:
    from ai_edge_litert.interpreter import Interpreter

    signatures: dict[str, Any] = Interpreter(model_content=model).get_signature_list()
    key, names = next(iter(signatures.items()))
    return {key: _SignatureFeeds(context, names["inputs"][0])}
