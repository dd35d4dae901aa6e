"""Options of a slot that a worker follows: batching and certainty."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edge_contracts.codec import StrictRecord


class Batching(StrictRecord, frozen=True, kw_only=True):
    """At most `max` requests are answered together, and none waits longer than `wait_ms` for others."""

    max: Annotated[int, Meta(ge=2, le=256)] = 8
    wait_ms: Annotated[float, Meta(gt=0.0, le=1000.0)] = 2.0


class Certainty(StrictRecord, frozen=True, kw_only=True):
    """What a slot asks of its answers: the set of classes that holds the truth with probability `coverage`, by the
    thresholds that the bundle ships. An answer whose set has more than `abstain_over` classes is not given."""

    coverage: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.9
    abstain_over: Annotated[int, Meta(ge=1)] | None = None
