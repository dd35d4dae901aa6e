"""What a candidate in shadow answered beside what was served: counts that add up, over windows and over devices.

Filled on the device (`edge_agent.answer_comparison` says how), sent inside telemetry windows, summed up in the reported
state. Inputs and answers themselves never leave the device this way.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edge_contracts.codec import Record
from edge_contracts.names import Sha256, Version

Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]

MAX_CONFUSIONS = 32
"""Pairs of classes counted by name; further ones are counted together, so that a window stays small."""


class ShadowCounts(Record, frozen=True, kw_only=True):
    """How one candidate compares, in requests.

    `compared` requests were answered by both sides, `failed` by the served side only. Of those compared, `classified`
    had classes, of which `agreed` had the same in every place. `confusion` counts the others by "served>candidate".
    `confidence_shift` has the candidate's confidence minus the served one in twenty bins over [-1, 1], and
    `confidence_shift_sum` their sum. `differences` counts the largest absolute difference of numbers that are no
    classes: entry i those in [2^(i/2 - 20), 2^((i+1)/2 - 20)), the first and last also what lies beyond.
    `served_us` and `candidate_us` are the sums of the times both took; `latency_log2_us` counts the candidate's as
    telemetry windows do. `deaths`: its process crashed, hung or grew too large.
    """

    version: Version
    manifest_sha256: Sha256
    compared: Count = 0
    classified: Count = 0
    agreed: Count = 0
    failed: Count = 0
    deaths: Count = 0
    confusion: Annotated[dict[str, Count], Meta(max_length=MAX_CONFUSIONS + 1)] = {}
    confidence_shift: Annotated[tuple[Count, ...], Meta(max_length=20)] = ()
    confidence_shift_sum: float = 0.0
    differences: Annotated[tuple[Count, ...], Meta(max_length=80)] = ()
    served_us: Count = 0
    candidate_us: Count = 0
    latency_log2_us: Annotated[tuple[Count, ...], Meta(max_length=64)] = ()


class ShadowSummary(Record, frozen=True, kw_only=True):
    """What stands in the reported state: the agreement with its 95 % Wilson interval, None where nothing had classes;
    `slower` is how many times as long the candidate takes, `difference` the median of the largest differences."""

    version: Version
    compared: Count = 0
    failed: Count = 0
    deaths: Count = 0
    agreement: Share | None = None
    low: Share | None = None
    high: Share | None = None
    slower: float | None = None
    difference: float | None = None
