"""Where the tensors lie in an ONNX file, by its wire format: no protobuf, no schema, no engine.

The walk follows the message types of onnx.proto (IR version 3 and later) that can contain a tensor, and nothing else.
What a tensor's fields are wanted for is the caller's: external data (`edge_agent.engines`), deltas (`edge_fleet`).
"""

from __future__ import annotations

from collections.abc import Iterator

from edge_io.protobuf import fields

MAX_DEPTH = 64
"""Messages within messages: a graph within a branch within a graph is six of them."""

CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Message type -> field number -> type of the message in it, from onnx.proto, where field numbers never change."""


def tensor_messages(model: memoryview, *, smallest_attribute: int = 0) -> Iterator[tuple[int, int]]:
    """Yield where each TensorProto of an ONNX model starts and ends, those of branches and functions included.

    Attributes under `smallest_attribute` bytes are left out: most hold one number. Raises ValueError or IndexError
    where the bytes are no message.
    """
    yield from _walk(model, (0, len(model)), "model", 0, smallest_attribute)


def _walk(
    model: memoryview, span: tuple[int, int], kind: str, depth: int, smallest_attribute: int
) -> Iterator[tuple[int, int]]:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    children = CHILDREN[kind]
    for field, wire, first, last in fields(model, *span):
        child = children.get(field)
        if wire != 2 or child is None:
            continue
        if child == "tensor":
            yield first, last
        elif child != "attribute" or last - first >= smallest_attribute:
            yield from _walk(model, (first, last), child, depth + 1, smallest_attribute)
