"""What a device says about itself: presence and reported state, both retained, both small.

The reported manifest hash is the only truth about what a device runs; nobody infers it from what was offered.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from edge_contracts import limits
from edge_contracts.codec import Record, decode
from edge_contracts.names import Name, Sha256, Text, UtcTime, Version
from edge_contracts.shadow import ShadowSummary

UpdateState = Literal[
    "idle",
    "offered",
    "preflight",
    "downloading",
    "verified",
    "trial",
    "shadow",
    "active",
    "committed",
    "rejected",
    "rolled_back",
]
"""Where a slot is with its newest release. `active` is served and soaking; `committed` has come through."""

Level = Literal["NORMAL", "CONSERVE", "CRITICAL"]


class Presence(Record, frozen=True, kw_only=True):
    """Birth message and Last Will, retained. Both carry the boot, so that a late Will is told from a new birth."""

    device: Name
    boot_id: Text
    online: bool
    time: UtcTime | None = None


class Installed(Record, frozen=True, kw_only=True):
    """A release on the device, identified by its manifest's hash."""

    version: Version
    manifest_sha256: Sha256


class SlotState(Record, frozen=True, kw_only=True):
    """One model slot: what it serves, what it can return to, and where its update is. `saved` are the bytes of the
    candidate that deltas spared fetching. `faults` are what is wrong around the slot now, for example "no-input".
    `shadow` is how a candidate in shadow compares, as of the last telemetry window."""

    slot: Name
    channel: Name | None = None
    model: Name | None = None
    state: UpdateState = "idle"
    reason: Text | None = None
    since: UtcTime | None = None
    serving: Installed | None = None
    variant: Name | None = None
    served_by: Text | None = None
    last_good: Installed | None = None
    factory: Installed | None = None
    candidate: Installed | None = None
    rollout: Name | None = None
    progress: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    saved: Annotated[int, Meta(ge=0)] = 0
    faults: Annotated[tuple[Name, ...], Meta(max_length=8)] = ()
    shadow: ShadowSummary | None = None


class ReportedState(Record, frozen=True, kw_only=True):
    """What the device runs and how it is. `(boot_id, sequence)` orders reports and makes gaps provable. `facts` are
    those that selectors compare: memory, CPUs and versions (`edge_contracts.selector`)."""

    device: Name
    boot_id: Text
    sequence: Annotated[int, Meta(ge=0)]
    time: UtcTime
    agent_version: Text
    board: Text
    architecture: Text
    tags: dict[str, str] = {}
    level: Level = "NORMAL"
    slots: tuple[SlotState, ...] = ()
    trusted: dict[str, int] = {}
    facts: Annotated[dict[str, Text], Meta(max_length=32)] = {}
    audit_head: Sha256 | None = None
    spooled: Annotated[int, Meta(ge=0)] = 0
    dropped: Annotated[int, Meta(ge=0)] = 0


def parse_reported(data: bytes) -> ReportedState:
    """Parse a reported state. Raises ContractError naming the field."""
    return decode(data, ReportedState, limit=limits.MAX_MESSAGE_BYTES, what="reported state")


def parse_presence(data: bytes) -> Presence:
    """Parse a presence message. Raises ContractError naming the field."""
    return decode(data, Presence, limit=limits.MAX_MESSAGE_BYTES, what="presence")
