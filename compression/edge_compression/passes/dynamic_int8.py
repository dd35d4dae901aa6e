"""Dynamic int8: weights stored in 8 bits, activations quantized at run time from each input's own range."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar

from edge_compression.onnx_tools.graph import count_operators, load, save
from edge_compression.onnx_tools.precision import refuse_half, refuse_quantized
from edge_compression.pass_api import Applied, Context, NothingToDoError
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format

INTEGER_OPERATORS = ("ConvInteger", "MatMulInteger", "DynamicQuantizeLSTM", "QAttention")


class DynamicInt8(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="dynamic_int8"):
    """Quantize with onnxruntime's dynamic quantizer. `operators` restricts it to these kinds; empty means all it
    knows. `reduce_range` keeps weights in 7 bits so that 16-bit sums cannot saturate on CPUs without VNNI."""

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = True

    per_channel: bool = False
    reduce_range: bool = False
    operators: tuple[str, ...] = ()

    def foresee(self, model: bytes, context: Context) -> None:  # noqa: ARG002 - the contract of passes that foresee
        refuse_quantized(model)
        refuse_half(model)

    def apply(self, model: bytes, context: Context) -> Applied:  # noqa: ARG002 - the contract of every pass
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "dynamic.onnx"
            quantize_dynamic(
                load(model),
                out,
                op_types_to_quantize=list(self.operators) or None,
                per_channel=self.per_channel,
                reduce_range=self.reduce_range,
                weight_type=QuantType.QUInt8,  # there is no kernel for signed convolutions, and u8 x u8 cannot saturate
            )
            quantized = load(out.read_bytes())
        integer = count_operators(quantized, INTEGER_OPERATORS)
        if integer == 0:
            raise NothingToDoError("no operator to quantize dynamically")
        return Applied(
            model=save(quantized),
            changed={"integer_operators": integer},
        )
