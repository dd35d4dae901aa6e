"""The readings a device takes of itself: one list, with what each one is and what it means for the device.

The governor judges them by the profile's thresholds (`edge_contracts.profile`), telemetry and `/metrics` show them,
`agent doctor` prints them. Which level does what is in `edge_agent.host.governor`.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Unit = Literal["celsius", "megabytes", "count", "percent", "flag"]
Shortage = Literal["compute", "memory"]
"""What a lighter variant can save."""


class Reading(Struct, frozen=True, kw_only=True):
    """One reading. `rises`: it is worse the higher it is. `sheds`: turning requests away makes it better, so that
    the device does so at CRITICAL. `eased_by`: what a lighter variant has to save to make it better, None if it cannot:
    a full disk is full whatever serves."""

    name: str
    unit: Unit
    text: str
    rises: bool = False
    sheds: bool = True
    eased_by: Shortage | None = None


READINGS = (
    Reading(name="temperature_c", unit="celsius", rises=True, eased_by="compute", text="Hottest sensor"),
    Reading(
        name="available_memory_mb", unit="megabytes", eased_by="memory", text="Memory the box can give without swapping"
    ),
    Reading(
        name="memory_limit_left_mb",
        unit="megabytes",
        eased_by="memory",
        text="Memory the limits of the agent's own control group leave",
    ),
    Reading(name="disk_free_mb", unit="megabytes", sheds=False, text="Free space on the state folder's file system"),
    Reading(name="free_inodes", unit="count", sheds=False, text="Free inodes on the state folder's file system"),
    Reading(name="tasks_left", unit="count", sheds=False, text="Processes and threads the agent's limits leave"),
    Reading(
        name="cpu_percent",
        unit="percent",
        rises=True,
        eased_by="compute",
        text="The agent's share of the CPU time it may use",
    ),
    Reading(name="battery_percent", unit="percent", eased_by="compute", text="Charge of a battery that discharges"),
    Reading(name="throttled", unit="flag", eased_by="compute", text="The firmware slows the CPU now"),
)
"""In the order in which reasons are told. None of a reading means that it cannot be had here; it is then not judged."""

BY_NAME = {reading.name: reading for reading in READINGS}
