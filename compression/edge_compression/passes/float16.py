"""Half precision: weights and arithmetic in float16, inputs and outputs left in float32."""

from __future__ import annotations

from typing import ClassVar

from edge_compression.onnx_tools.graph import load, save
from edge_compression.onnx_tools.precision import refuse_half, refuse_quantized
from edge_compression.pass_api import Applied, Context
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format


class Float16(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="float16"):
    """Convert to float16 with onnxruntime's own converter. `blocked` operators stay in float32, besides those the
    converter blocks itself because they have no half-precision kernel."""

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = True

    blocked: tuple[str, ...] = ()

    def foresee(self, model: bytes, context: Context) -> None:  # noqa: ARG002 - the contract of passes that foresee
        refuse_quantized(model)
        refuse_half(model)

    def apply(self, model: bytes, context: Context) -> Applied:  # noqa: ARG002 - the contract of every pass
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

        converted = convert_float_to_float16(
            load(model), keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *self.blocked]
        )
        casts = sum(node.op_type == "Cast" for node in converted.graph.node)
        return Applied(model=save(converted), changed={"casts": casts})
