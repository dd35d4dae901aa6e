"""The class an answer stands for and how sure the model is of it, from the fields of a protocol answer. Pure, and
without numpy, because the supervisor has none; scores and abstaining are decided in the worker.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from edge_contracts.manifest import Manifest

MAX_LABEL_CHARS = 255
"""What Home Assistant takes as a state."""

_FORMATS = {"FP16": "e", "FP32": "f", "FP64": "d"}


def top_class(fields: Mapping[str, Any], manifest: Manifest) -> tuple[str, float | None] | None:
    """Return the label (or the number) of the best class of the first sample and its share between 0 and 1, None where
    there is none; ("abstained", None) where the model abstained; None for an answer without classes.

    `fields` are an answer's as `edge_agent.supervisor.mqtt_gateway.messages.unpacked` gives them.
    """
    if fields.get("parameters", {}).get("abstained"):
        return "abstained", None
    first = manifest.outputs[0]
    if first.kind == "values":
        return None
    for output in fields.get("outputs", []):
        if output.get("name") == first.name and output.get("shape"):
            scores = _numbers(output)[: output["shape"][-1]]
            return _best(scores, first.kind == "logits", manifest.labels)
    return None


def _best(scores: Sequence[float], logits: bool, labels: Sequence[str]) -> tuple[str, float | None] | None:
    if not scores or not all(math.isfinite(score) for score in scores):
        return None
    best = max(range(len(scores)), key=scores.__getitem__)
    share = scores[best]
    if logits:
        share = 1.0 / sum(math.exp(score - scores[best]) for score in scores)
    return labels[best][:MAX_LABEL_CHARS] if best < len(labels) else str(best), share


def _numbers(output: Mapping[str, Any]) -> Sequence[float]:
    data = output.get("data", ())
    if not isinstance(data, bytes):
        return [math.nan if number is None else float(number) for number in data]  # JSON has no NaN
    code = _FORMATS.get(output.get("datatype", ""))
    if code is None:
        return ()
    return struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data)
