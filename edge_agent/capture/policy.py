"""When requests may be captured: not while the box is short of anything, nor beyond the day's share of writes. Pure."""

from __future__ import annotations

from edge_agent.config.shadow_capture import CaptureConfig
from edge_agent.host.governor import Readings
from edge_agent.host.write_budget import DayWrites

DISK_RESERVE_MB = 64.0
"""What captures leave free on the disk whatever the profile's thresholds are, in megabytes: an update needs it more."""

_MIB = 1024 * 1024


def may_capture(settings: CaptureConfig, today: DayWrites, readings: Readings, *, calm: bool) -> bool:
    """Return whether captures may go on. `today` is what they have written, `calm` whether the governor says NORMAL and
    the day's writes are not being saved."""
    free = readings.disk_free_mb
    return calm and today.bytes < settings.daily_mb * _MIB and (free is None or free >= DISK_RESERVE_MB)
