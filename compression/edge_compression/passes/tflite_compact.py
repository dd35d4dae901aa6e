"""Compaction of TFLite models: the same graph in fewer bytes. In small models names and notes weigh a tenth."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from edge_compression.pass_api import Applied, Context
from edge_compression.tflite_tools.graph import load, save
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format

KEPT_NOTES = (b"reduced_precision_support",)
"""Metadata that engines compute by: where it says so, half precision may be used."""


class TfliteCompact(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="tflite_compact"):
    """Take away what inference does not need: inner tensors' names, notes, extremes seen in training, tensors and
    constants that nothing reads; equal constants are kept once. Graphs' inputs and outputs and signatures keep their
    names."""

    format: ClassVar[Format] = "tflite"
    quantizes: ClassVar[bool] = False
    refines: ClassVar[bool] = True

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
            _drop_unread(parsed, graph)
        _keep_each_buffer_once(parsed)
        compacted = save(parsed)
        if len(compacted) >= len(model):
            return Applied(model=model, changed={"bytes_saved": 0})
        return Applied(model=compacted, changed={"bytes_saved": len(model) - len(compacted)})


def _forget_extremes(tensor: Any) -> None:
    quantization = tensor.quantization
    if quantization is None:
        return
    quantization.min = quantization.max = None
    if quantization.scale is None and quantization.details is None:
        tensor.quantization = None


def _drop_unread(model: Any, graph: Any) -> None:
    """Take away the tensors that no operator and no signature of the graph names, and number the others anew."""
    place = next(index for index, one in enumerate(model.subgraphs) if one is graph)
    signed = [
        entry
        for signature in model.signatureDefs or []
        if signature.subgraphIndex == place
        for entry in (*(signature.inputs or []), *(signature.outputs or []))
    ]
    lists = [graph.inputs, graph.outputs]
    for operator in graph.operators:
        lists += [operator.inputs, operator.outputs, operator.intermediates]
    used = {int(index) for one in lists if one is not None for index in one} | {int(e.tensorIndex) for e in signed}
    kept = [index for index in range(len(graph.tensors)) if index in used]
    numbers = {-1: -1} | {old: new for new, old in enumerate(kept)}

    def numbered(values: Any) -> Any:
        return None if values is None else np.array([numbers[int(index)] for index in values], np.int32)

    graph.tensors = [graph.tensors[index] for index in kept]
    graph.inputs, graph.outputs = numbered(graph.inputs), numbered(graph.outputs)
    for operator in graph.operators:
        operator.inputs, operator.outputs = numbered(operator.inputs), numbered(operator.outputs)
        operator.intermediates = numbered(operator.intermediates)
    for entry in signed:
        entry.tensorIndex = numbers[int(entry.tensorIndex)]


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
