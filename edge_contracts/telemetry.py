"""What leaves the device about its work: windows of mergeable statistics, and single events. Never inputs.

Both carry `(boot_id, sequence)` from one counter per boot, so that a gap is provable and a duplicate is harmless.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from edge_contracts import limits
from edge_contracts.codec import Record, decode
from edge_contracts.names import Name, Text, UtcTime, Version
from edge_contracts.shadow import ShadowCounts
from edge_contracts.state import Level

Count = Annotated[int, Meta(ge=0)]


class TelemetryWindow(Record, frozen=True, kw_only=True):
    """Statistics of one slot over one window.

    `latency_log2_us`: entry i counts answers that took [2^i, 2^(i+1)) microseconds; windows merge by addition.
    `counters`: requests, errors, lost, rejected, abstained, shed and guard counts. `served_by`: answers per rung.
    `resources`: readings in the unit their name ends with. `histograms`: counts over the bins of the bundle; those of
    a tag of requests have it behind an `@`, as in `x/mean@line-2`, and `other` is all tags too many. `drift`: a
    histogram's distance from the bundle's, as a multiple of what chance keeps below; over 1 is an alarm. `shadow`: what
    a candidate answered beside, if one is in shadow and was shown something.
    """

    kind: Literal["window"] = "window"
    device: Name
    boot_id: Text
    sequence: Count
    start: UtcTime
    end: UtcTime
    slot: Name
    model: Name | None = None
    version: Version | None = None
    variant: Name | None = None
    level: Level = "NORMAL"
    counters: dict[str, Count] = {}
    served_by: dict[str, Count] = {}
    latency_log2_us: Annotated[tuple[Count, ...], Meta(max_length=64)] = ()
    resources: dict[str, float] = {}
    histograms: dict[str, tuple[Count, ...]] = {}
    drift: dict[str, float] = {}
    shadow: ShadowCounts | None = None


class Event(Record, frozen=True, kw_only=True):
    """Something that happened once: a transition, a refusal, a crash. `detail` holds the readings that caused it. `log`
    are the last lines of the processes concerned, where a release was rejected or rolled back; no inputs, no secrets.
    """

    kind: Literal["event"] = "event"
    device: Name
    boot_id: Text
    sequence: Count
    time: UtcTime
    event: Name
    severity: Literal["info", "warning", "error"] = "info"
    slot: Name | None = None
    text: Text = ""
    detail: dict[str, str | int | float | bool] = {}
    log: Annotated[str, Meta(max_length=limits.MAX_EXCERPT_BYTES)] = ""


class Tombstone(Record, frozen=True, kw_only=True):
    """Says how many messages of lower priority the outbox had to drop, so that a gap has a known size."""

    kind: Literal["dropped"] = "dropped"
    device: Name
    boot_id: Text
    sequence: Count
    time: UtcTime
    first: Count
    count: Count


def parse_window(data: bytes) -> TelemetryWindow:
    """Parse a telemetry window. Raises ContractError naming the field."""
    return decode(data, TelemetryWindow, limit=limits.MAX_MESSAGE_BYTES, what="telemetry window")


def parse_event(data: bytes) -> Event:
    """Parse an event. Raises ContractError naming the field."""
    return decode(data, Event, limit=limits.MAX_MESSAGE_BYTES, what="event")
