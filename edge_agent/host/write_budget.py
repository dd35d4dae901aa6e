"""The day's writes against the device's budget. Pure; the bytes are measured in `edge_agent.host.write_meter`.

An SD card wears out by what is written to it. When most of the day's budget is used, what the agent writes for its own
account gives way: windows of telemetry stay open until the next day, and events become durable in batches. Updates and
the audit log do not give way: what was signed is installed, and what was done is on record.
"""

from __future__ import annotations

from edge_contracts.codec import Record

DAY_S = 86_400.0
TIGHT_SHARE = 0.8
"""Share of the day's budget from which on writing is saved."""


class DayWrites(Record, frozen=True, kw_only=True):
    """Bytes written on one day, counted since the epoch in UTC."""

    day: int = 0
    bytes: int = 0


def spend(spent: DayWrites, clock: float, written: int) -> DayWrites:
    """Return the account after `written` more bytes at `clock`, seconds since the epoch."""
    day = int(clock // DAY_S)
    return DayWrites(day=day, bytes=written + (spent.bytes if day == spent.day else 0))


def tight(spent: DayWrites, budget_bytes: float) -> bool:
    """Return whether writing is to be saved for the rest of the day."""
    return spent.bytes >= TIGHT_SHARE * budget_bytes
