"""What the pipeline answers: outputs, who gave them, and what is certain of them."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct


class NodeAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one node of a pipeline did: `served_by` names the rung of a model, or the rungs if several answered its
    rows; None for a node without one. `failed` says why the node has no answer."""

    node: str
    served_by: str | None = None
    timing_us: int = 0
    failed: str | None = None
    warnings: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one request. `served_by` names the rung, `model_sha256` its model file (None: no model answered).

    `outputs` is empty when `abstained`. `prediction` is there where the slot asks for certainty and the variant has a
    threshold for it, `nodes` where the model is a pipeline. `timing_us` covers everything from checks to guards.
    `stream_start` says of a stream's step that it was the first: nothing from before it counts in this answer.
    """

    outputs: dict[str, Any]
    served_by: str
    version: str | None
    model_sha256: str | None
    abstained: bool
    warnings: tuple[str, ...]
    timing_us: int
    prediction: Prediction | None = None
    nodes: tuple[NodeAnswer, ...] = ()
    stream_start: bool = False


class Prediction(Struct, frozen=True, kw_only=True):
    """What is certain of one answer at `coverage`: for each sample the classes that may be right, or `width`: the
    truth lies within that distance of each value, in the output's unit."""

    coverage: float
    sets: tuple[tuple[int, ...], ...] = ()
    width: float | None = None

    @property
    def largest(self) -> int:
        return max(map(len, self.sets), default=1)
