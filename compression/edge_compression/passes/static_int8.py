"""Static int8: weights and activations quantized ahead of time, as QDQ pairs that every engine can fuse, or as
ONNX Runtime's own quantized operators."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from edge_compression.onnx_tools.graph import (
    SCALES_ALONG_AXES,
    attributes,
    count_operators,
    float_activations,
    float_array,
    load,
    save,
    session,
    upgraded,
    with_names,
    with_outputs,
)
from edge_compression.onnx_tools.precision import refuse_half, refuse_quantized
from edge_compression.pass_api import Applied, Context, NothingToDoError
from edge_compression.quantization.calibration import HISTOGRAMS, Calibrator, Tensors, choose, collect
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format


class StaticInt8(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="static_int8"):
    """Quantize with onnxruntime's quantizers and our own streamed calibration.

    `activations`: u8 keeps one bit more after a ReLU and is the faster kind on x86; s8 is symmetric; s16 is nearly
    exact and slow, ONNX Runtime has no kernels that multiply it. `form`: "qdq", or "qoperator" for engines that do not
    fuse; the passes that round weights anew know the first only.
    `per_channel`: one weight scale an output channel. `reduce_range`: weights in 7 bits, so that the 16-bit sums of
    CPUs without VNNI cannot saturate. `operators` restricts quantization to these kinds; empty means all.
    `percentile`: share of values kept by that calibrator, in percent.
    """

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = True

    calibrator: Calibrator = "minmax"
    percentile: Annotated[float, Meta(gt=50.0, le=100.0)] = 99.99
    per_channel: bool = True
    activations: Literal["u8", "s8", "s16"] = "u8"
    form: Literal["qdq", "qoperator"] = "qdq"
    reduce_range: bool = False
    operators: tuple[str, ...] = ()

    def foresee(self, model: bytes, context: Context) -> None:  # noqa: ARG002 - the contract of passes that foresee
        refuse_quantized(model)
        refuse_half(model)

    def apply(self, model: bytes, context: Context) -> Applied:
        graph = with_names(upgraded(load(model), SCALES_ALONG_AXES))
        kinds = self._kinds()
        ranges = self._ranges(graph, kinds, context)
        quantized = self._quantized(graph, kinds, ranges)
        pairs = count_operators(quantized, ("QuantizeLinear",))
        if pairs == 0:
            raise NothingToDoError(f"no operator to quantize among {', '.join(sorted(kinds))}")
        return Applied(model=save(quantized), changed={"activations_calibrated": len(ranges), "quantizers": pairs})

    def _quantized(self, graph: Any, kinds: frozenset[str], ranges: dict[str, Any]) -> Any:
        from onnxruntime.quantization import CalibrationMethod, QuantizationMode, QuantType
        from onnxruntime.quantization.calibrate import TensorsData
        from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        activation = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8, "s16": QuantType.QInt16}[self.activations]
        given: tuple[Any, ...] = (
            QuantType.QInt8,
            activation,
            TensorsData(CalibrationMethod.MinMax, ranges),
            [],  # nodes to quantize: all of these kinds
            grouped_transposed(graph) if self.per_channel else [],  # nodes to leave
            sorted(kinds),
            {"ActivationSymmetric": self.activations != "u8"},
        )
        if self.form == "qdq":
            quantizer = QDQQuantizer(graph, self.per_channel, self.reduce_range, *given)
        else:
            mode = QuantizationMode.QLinearOps
            quantizer = ONNXQuantizer(graph, self.per_channel, self.reduce_range, mode, True, *given)
        quantizer.quantize_model()
        return quantizer.model.model

    def _kinds(self) -> frozenset[str]:
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

        return frozenset(self.operators or (*QDQRegistry, *QLinearOpsRegistry))

    def _ranges(self, graph: Any, kinds: frozenset[str], context: Context) -> dict[str, Any]:
        names = float_activations(graph, kinds)
        if not names:
            raise NothingToDoError(f"no operator to quantize among {', '.join(sorted(kinds))}")
        found = collect(partial(_activations, graph, names, context), histograms=self.calibrator in HISTOGRAMS)
        chosen = {name: choose(r, self.calibrator, percentile=self.percentile) for name, r in found.items()}
        return {name: (float_array(low), float_array(high)) for name, (low, high) in chosen.items()}


def grouped_transposed(graph: Any) -> list[str]:
    """Return the names of grouped ConvTranspose nodes: their output channels lie along two axes of the weights, and
    ONNX Runtime's quantizer takes scales along one."""
    return [
        node.name
        for node in graph.graph.node
        if node.op_type == "ConvTranspose" and attributes(node).get("group", 1) > 1
    ]


def _activations(graph: Any, names: list[str], context: Context) -> Iterator[Tensors]:
    inputs = {info.name for info in graph.graph.input}
    inner = [name for name in names if name not in inputs]
    opened = session(save(with_outputs(graph, inner)))
    for feeds in context.calibration():
        tensors: dict[str, Any] = {name: feeds[name] for name in names if name in inputs}
        tensors.update(zip(inner, opened.run(inner, feeds), strict=True))
        yield tensors
