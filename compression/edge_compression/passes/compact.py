"""Compaction: the same graph in fewer bytes. In small quantized models names and notes weigh as much as the weights."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator
from typing import Any, ClassVar

from edge_compression.onnx_tools.graph import load, save
from edge_compression.pass_api import Applied, Context
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format


class Compact(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="compact"):
    """Give inner tensors one or two letters for a name, share equal constants, drop node names, notes and the shapes
    that can be inferred. Inputs and outputs keep their names. A graph with graphs inside keeps all names."""

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = False
    refines: ClassVar[bool] = True

    def apply(self, model: bytes, context: Context) -> Applied:  # noqa: ARG002 - the contract of every pass
        graph = load(model)
        del graph.graph.value_info[:], graph.metadata_props[:]
        graph.doc_string = graph.graph.doc_string = ""
        for node in graph.graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
        if not _has_graphs_inside(graph):
            _rename(graph.graph, _shared_constants(graph.graph))
        compacted = save(graph)
        if len(compacted) >= len(model):
            return Applied(model=model, changed={"bytes_saved": 0})
        return Applied(model=compacted, changed={"bytes_saved": len(model) - len(compacted)})


def _has_graphs_inside(model: Any) -> bool:
    return any(
        attribute.HasField("g") or attribute.graphs for node in model.graph.node for attribute in node.attribute
    ) or bool(model.functions)


def _shared_constants(graph: Any) -> dict[str, str]:
    """Keep one of each group of equal constants; return which name stands for each one that went."""
    first: dict[bytes, str] = {}
    stands_for: dict[str, str] = {}
    outputs = {info.name for info in graph.output}
    kept = []
    for tensor in graph.initializer:
        name = tensor.name
        tensor.name = tensor.doc_string = ""
        content = tensor.SerializeToString(deterministic=True)
        tensor.name = name
        if content in first and name not in outputs:
            stands_for[name] = first[content]
            continue
        first.setdefault(content, name)
        kept.append(tensor)
    unique = [type(tensor).FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(unique)
    return stands_for


def _rename(graph: Any, stands_for: dict[str, str]) -> None:
    fixed = {info.name for info in (*graph.input, *graph.output)} | {""}
    names: dict[str, str] = {name: name for name in fixed}
    fresh = (name for name in _short_names() if name not in fixed)

    def short(name: str) -> str:
        name = stands_for.get(name, name)
        if name not in names:
            names[name] = next(fresh)
        return names[name]

    for tensor in graph.initializer:
        tensor.name = short(tensor.name)
    for node in graph.node:
        node.name = ""
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]


def _short_names() -> Iterator[str]:
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_letters, repeat=length):
            yield "".join(letters)
