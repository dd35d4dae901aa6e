"""Compaction of TFLite models: the same graph in fewer bytes. In small models names and notes weigh a tenth."""

from __future__ import annotations

from typing import Any, ClassVar

from edge_compression.pass_api import Applied, Context
from edge_compression.tflite_tools.graph import load, save
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format

KEPT_NOTES = (b"reduced_precision_support",)
"""Metadata that engines compute by: where it says so, half precision may be used."""


class TfliteCompact(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="tflite_compact"):
    """Take away what inference does not need: inner tensors' names, notes, extremes seen in training, constants that
    nothing reads; equal constants are kept once. Graphs' inputs and outputs and signatures keep their names."""

    format: ClassVar[Format] = "tflite"
    quantizes: ClassVar[bool] = False

    def apply(self, model: bytes, context: Context) -> Applied:  # noqa: ARG002 - the contract of every pass
        parsed = load(model)
        parsed.description = parsed.metadataBuffer = None
        parsed.metadata = [note for note in parsed.metadata or [] if note.name in KEPT_NOTES] or None
        for graph in parsed.subgraphs:
            named = {int(index) for ends in (graph.inputs, graph.outputs) if ends is not None for index in ends}
            for index, tensor in enumerate(graph.tensors):
                if index not in named:
                    tensor.name = None
                _forget_extremes(tensor)
        _keep_each_buffer_once(parsed)
        compacted = save(parsed)
        return Applied(model=compacted, changed={"bytes_saved": len(model) - len(compacted)})


def _forget_extremes(tensor: Any) -> None:
    quantization = tensor.quantization
    if quantization is None:
        return
    quantization.min = quantization.max = None
    if quantization.scale is None and quantization.details is None:
        tensor.quantization = None


def _keep_each_buffer_once(model: Any) -> None:
    """Renumber the buffers. The first is empty and stands for all tensors without values, as the schema has it; one
    with none of its own holds the values of a constant of no elements."""
    kept = [model.buffers[0]]
    places: dict[bytes, int] = {}

    def place(index: int) -> int:
        buffer = model.buffers[index]
        if index == 0 or buffer.data is None:
            return 0
        content = buffer.data.tobytes()
        if content not in places:
            places[content] = len(kept)
            kept.append(buffer)
        return places[content]

    for one in (*(tensor for graph in model.subgraphs for tensor in graph.tensors), *(model.metadata or [])):
        one.buffer = place(one.buffer)
    model.buffers = kept
