"""The oldest engine a bundle asks for: derived from what its files declare, not from the version they were made with.

A floor only says that asking is not pointless; each device's trial says whether its engine runs the variants well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx

LITERT_FLOOR = "2.0"
"""Oldest version of ai-edge-litert that Edgewright depends on (tflite-runtime counts on from 2.14). TFLite files name
the version of every operator, but no table says which release brought which, so nothing newer can be derived."""


@dataclass(frozen=True, kw_only=True)
class _Release:
    """The newest of each that a release of onnxruntime reads."""

    version: str
    opset: int
    ml_opset: int
    ir: int


_RELEASES = (
    _Release(version="1.17", opset=20, ml_opset=4, ir=9),
    _Release(version="1.20", opset=21, ml_opset=5, ir=10),
)
"""From onnxruntime's published compatibility table, "ONNX opset support", taken with reserve: the oldest release
listed for a set may be older than here, never newer. The first is the oldest that Edgewright depends on."""

_STANDARD = ("", "ai.onnx")
_KNOWN = (*_STANDARD, "ai.onnx.ml", "com.microsoft")


def onnxruntime_floor(models: Iterable[onnx.ModelProto], tried: str) -> str:
    """Return the oldest onnxruntime for all these models; `tried`, the version here, where the table has no answer:
    newer operator sets, operators of other domains, functions inside the model."""
    places = [_place(model) for model in models]
    known = [place for place in places if place is not None]
    return _RELEASES[max(known)].version if known and len(known) == len(places) else tried


def _place(model: onnx.ModelProto) -> int | None:
    """Return the index of the first release that reads the model, or None when that is not known."""
    imported = {entry.domain: entry.version for entry in model.opset_import}
    used = {node.domain for node in model.graph.node}
    if model.functions or not used <= set(_STANDARD) or not imported.keys() <= set(_KNOWN):
        return None
    opset = max(imported.get(domain, 1) for domain in _STANDARD)
    for place, release in enumerate(_RELEASES):
        fits = opset <= release.opset and imported.get("ai.onnx.ml", 1) <= release.ml_opset
        if fits and model.ir_version <= release.ir:
            return place
    return None
