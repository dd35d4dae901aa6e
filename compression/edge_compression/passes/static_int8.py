"""Static int8: weights and activations quantised ahead of time, written as QDQ pairs that every engine can fuse."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from edge_compression.calibrate import Calibrator, Tensors, choose, collect
from edge_compression.contract import Applied, Context, PassError
from edge_compression.onnx_graph import (
    count_operators,
    float_activations,
    float_array,
    load,
    save,
    session,
    with_names,
    with_outputs,
)
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format


class StaticInt8(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="static_int8"):
    """Quantise with onnxruntime's QDQ quantizer and our own streamed calibration.

    `activations`: u8 keeps one bit more after a ReLU and is the faster kind on x86; s8 is symmetric.
    `per_channel`: one weight scale an output channel. `reduce_range`: weights in 7 bits, so that the 16-bit sums of
    CPUs without VNNI cannot saturate. `operators` restricts quantisation to these kinds; empty means all.
    `percentile`: share of values kept by that calibrator, in percent.
    """

    format: ClassVar[Format] = "onnx"
    quantises: ClassVar[bool] = True

    calibrator: Calibrator = "minmax"
    percentile: Annotated[float, Meta(gt=50.0, le=100.0)] = 99.99
    per_channel: bool = True
    activations: Literal["u8", "s8"] = "u8"
    reduce_range: bool = False
    operators: tuple[str, ...] = ()

    def apply(self, model: bytes, context: Context) -> Applied:
        from onnxruntime.quantization import CalibrationMethod, QuantType
        from onnxruntime.quantization.calibrate import TensorsData
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        graph = with_names(load(model))
        kinds = self._kinds()
        ranges = self._ranges(graph, kinds, context)
        quantizer = QDQQuantizer(
            graph,
            self.per_channel,
            self.reduce_range,
            QuantType.QInt8,
            QuantType.QUInt8 if self.activations == "u8" else QuantType.QInt8,
            TensorsData(CalibrationMethod.MinMax, ranges),
            [],
            [],
            sorted(kinds),
            {"ActivationSymmetric": self.activations == "s8"},
        )
        quantizer.quantize_model()
        quantised = quantizer.model.model
        pairs = count_operators(quantised, ("QuantizeLinear",))
        if pairs == 0:
            raise PassError(f"no operator to quantise among {', '.join(sorted(kinds))}")
        return Applied(model=save(quantised), changed={"activations_calibrated": len(ranges), "quantizers": pairs})

    def _kinds(self) -> frozenset[str]:
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

        return frozenset(self.operators or (*QDQRegistry, *QLinearOpsRegistry))

    def _ranges(self, graph: Any, kinds: frozenset[str], context: Context) -> dict[str, Any]:
        names = float_activations(graph, kinds)
        if not names:
            raise PassError(f"no operator to quantise among {', '.join(sorted(kinds))}")
        found = collect(partial(_activations, graph, names, context), histograms=self.calibrator != "minmax")
        chosen = {name: choose(r, self.calibrator, percentile=self.percentile) for name, r in found.items()}
        return {name: (float_array(low), float_array(high)) for name, (low, high) in chosen.items()}


def _activations(graph: Any, names: list[str], context: Context) -> Iterator[Tensors]:
    inputs = {info.name for info in graph.graph.input}
    inner = [name for name in names if name not in inputs]
    opened = session(save(with_outputs(graph, inner)))
    for feeds in context.calibration():
        tensors: dict[str, Any] = {name: feeds[name] for name in names if name in inputs}
        tensors.update(zip(inner, opened.run(inner, feeds), strict=True))
        yield tensors
