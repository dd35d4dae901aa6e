"""What the simulation and its processes of devices say to each other: JSON lines on standard input and output."""

from __future__ import annotations

from typing import Literal

from edge_contracts.codec import StrictRecord
from edge_contracts.state import Installed
from edgewright.simulator.scenario import FleetScenario


class HostPlan(StrictRecord, frozen=True, kw_only=True):
    """What one process of devices is told, as one JSON argument: devices `first` to `last` - 1, their broker, the root
    they trust, what serves on them, and the manifest of the release that the scenario speaks of. `group` is the fact
    whose values make the groups of which availability is counted."""

    host: str
    port: int
    protocol: Literal["auto", "5", "3.1.1"]
    tenant: str
    channel: str
    model: str
    first: int
    last: int
    scenario: FleetScenario
    root: str
    stable: Installed
    candidate: str
    group: str = "tag.site"


class Tally(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="tally"):
    """How the devices of one process are now, said about once a second. `connected` devices are online; `committed`
    serve the release and have come through with it, `failed` gave it up by themselves, ever; `bearing` have it on the
    way or serve it; `reverted` served it and went back to what they had. The traffic is the sum since the start: MQTT
    packets in bytes, and application messages, both directions."""

    connected: int = 0
    committed: int = 0
    failed: int = 0
    bearing: int = 0
    reverted: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    messages_in: int = 0
    messages_out: int = 0
    windows: int = 0
    asked_again: int = 0
    lost_connections: int = 0
    refused: dict[str, int] = {}


class Unavailable(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="unavailable"):
    """A device of this group has begun to change what it serves (`by` is 1), or has settled again (-1), at true time
    `at` in seconds."""

    group: str
    by: int
    at: float


class Begin(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="begin"):
    """The rollout has begun: the scenario's moments count from now."""


FromHost = Tally | Unavailable
