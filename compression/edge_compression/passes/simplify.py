"""Graph simplification with onnxslim: constants folded, batch norms fused, dead nodes gone; kept only if it agrees."""

from __future__ import annotations

from typing import ClassVar

import onnx
import onnx.inliner

from edge_compression.onnx_tools.equivalence import largest_difference
from edge_compression.onnx_tools.graph import count_operators, load, save
from edge_compression.onnx_tools.inner_graphs import bind_inputs, hoist_constants, with_inputs_of
from edge_compression.onnx_tools.precision import is_quantized
from edge_compression.pass_api import Applied, Context, PassError
from edge_compression.quantization.weights import MIN_VALUES
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format

UNPACKING = ("DequantizeLinear",)
GROWTH, NOTES = 0.01, 512
"""By how much a simplified graph may be larger: constants that were computed once are worth a hundredth, and onnxslim
signs what it writes in bytes that do not grow with the model."""

WITHOUT_FOLDING = ["constant_folding"]


class Simplify(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="simplify"):
    """Simplify the graph, with inputs that are constant as constants of it: branches that depend on them are chosen.
    Such inputs stay, and are read no more. Local functions are written out as what they are made of. The result must
    agree with the given model on the first calibration samples within `tolerance`, relative to the range of each
    output, and must not be much larger: computed once, `Expand` of a few bytes is a megabyte. Otherwise it is tried
    without folding constants, and then left as it was; the report says so."""

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = False
    refines: ClassVar[bool] = True

    tolerance: float = 1e-4

    def apply(self, model: bytes, context: Context) -> Applied:
        reasons = []
        for skipped in ([], WITHOUT_FOLDING):
            found = self._simplified(model, skipped, context)
            if isinstance(found, Applied):
                return found
            reasons.append(found)
        # What went wrong first is the reason; without folding there is often just nothing to gain.
        raise PassError(reasons[0])

    def _simplified(self, model: bytes, skipped: list[str], context: Context) -> Applied | str:
        """Return the simplified graph, or why it is not kept."""
        import onnxslim

        before = load(model)
        prepared = load(model)
        bound = bind_inputs(prepared, context.constants)
        try:
            if prepared.functions:  # the simplifier and all passes after it look at operators only
                prepared = onnx.inliner.inline_local_functions(prepared)
            after = onnxslim.slim(prepared, skip_optimizations=skipped)
        except Exception as error:  # it raises whatever its rules run into
            return f"onnxslim failed: {type(error).__name__}: {str(error)[:300]}"
        if after is None:
            return "onnxslim gave no model back"
        hoist_constants(with_inputs_of(after, before), MIN_VALUES)
        had, has = _bare_bytes(before), _bare_bytes(after)
        if has > had * (1.0 + GROWTH) + NOTES:
            return f"the simplified graph has {has} bytes, far more than the {had} before"
        slim = save(after)
        if is_quantized(before) and count_operators(after, UNPACKING) < count_operators(before, UNPACKING):
            return "the simplified graph lost scales of the quantized model"
        difference = largest_difference(model, slim, context)
        if not difference <= self.tolerance:
            return f"the simplified graph differs by {difference:.2g}"
        return Applied(
            model=slim,
            changed={
                "nodes_before": len(before.graph.node),
                "nodes_after": len(after.graph.node),
                "largest_difference": difference,
                **({"inputs_bound": bound} if bound else {}),
            },
        )


def _bare_bytes(model: onnx.ModelProto) -> int:
    """Return a model's size without the notes that onnxslim adds and `compact` takes away: inferred shapes and names
    of nodes."""
    notes = sum(info.ByteSize() for info in model.graph.value_info) + sum(len(node.name) for node in model.graph.node)
    return int(model.ByteSize()) - notes
