"""Graph simplification with onnxslim: constants folded, batch norms fused, dead nodes gone; kept only if it agrees."""

from __future__ import annotations

from typing import ClassVar

from edge_compression.onnx_tools.equivalence import largest_difference
from edge_compression.onnx_tools.graph import load, save
from edge_compression.pass_api import Applied, Context
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format


class Simplify(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="simplify"):
    """Simplify the graph. The result must agree with the given model on the first calibration samples within
    `tolerance`, relative to the range of each output; otherwise the model is left as it was and the report says so."""

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = False

    tolerance: float = 1e-4

    def apply(self, model: bytes, context: Context) -> Applied:
        import onnxslim

        before = load(model)
        after = onnxslim.slim(load(model))
        if after is None:
            return Applied(model=model, changed={"kept": "onnxslim gave no model back"})
        slim = save(after)
        difference = largest_difference(model, slim, context)
        if not difference <= self.tolerance:
            return Applied(model=model, changed={"kept": f"the simplified graph differs by {difference:.2g}"})
        return Applied(
            model=slim,
            changed={
                "nodes_before": len(before.graph.node),
                "nodes_after": len(after.graph.node),
                "largest_difference": difference,
            },
        )
