"""What a slot may take aside of the requests it serves: for a shadow that answers them too, or sealed on the disk.

The fields of `[slots.shadow]` and `[slots.capture]`. Taking aside is in `edge_agent.worker.request_tap`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from edge_contracts.codec import StrictRecord

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]
Kind = Literal["abstained", "uncertain", "errors"]


class ShadowConfig(StrictRecord, frozen=True, kw_only=True):
    """`share` of the requests is shown to a candidate in shadow; 0 shows it none. One that takes longer than
    `deadline_s` over a request is taken for hung."""

    share: Share = 0.05
    deadline_s: Positive = 30.0


class CaptureConfig(StrictRecord, frozen=True, kw_only=True):
    """`share` of the requests is kept with its answer, sealed with the public `key`, in `folder`, by default
    `captures/<slot>` in the state folder. The oldest go when `max_mb` are used; a day writes `daily_mb` at most.

    `only` keeps those alone that abstained, that were uncertain (more than one class cannot be ruled out, by the slot's
    `certainty`), or that had errors (another rung had to answer, or a guard warned). Empty keeps all.
    """

    key: str
    folder: str | None = None
    share: Share = 0.01
    only: Annotated[tuple[Kind, ...], Meta(max_length=3)] = ()
    max_mb: Annotated[float, Meta(ge=1.0)] = 64.0
    daily_mb: Positive = 32.0
