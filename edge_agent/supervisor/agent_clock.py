"""The supervisor's clock: the wall clock as it is now, and what happened to it and to this process meanwhile.

Windows, days and what people read go by the wall clock as it is now. Durations go by CLOCK_BOOTTIME, which nobody can
set and which goes on through a suspend. Records keep points of wall time, so that they mean something after a restart:
when somebody sets the wall clock, or this process did not run, `tick` says by how much, and the records follow
(`Shifted` in `edge_agent.update.events`). Patience with others goes by `edge_agent.run_clock`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from edge_agent.run_clock import RunClock
from edge_agent.storage.time_floor import read_signed_floor

STEP_S = 2.0
"""Wall time that moves by more than this against the boot clock was set by somebody, in seconds; less is a clock being
disciplined."""

UNSYNCED_S = 3600.0
"""How long a time service that has not synchronized yet is waited for before the clock is believed, in seconds: a site
without a way to any time server has maintenance windows, too."""

TIMESYNC = "run/systemd/timesync"
"""Where systemd-timesyncd is known by its folder, and by `synchronized` in it once it has set the clock."""


class ClockChange(Struct, frozen=True, kw_only=True):
    """What happened to time since the last tick: the wall clock was set by `stepped_s`, and for `lost_s` this process
    did not run."""

    stepped_s: float = 0.0
    lost_s: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.stepped_s or self.lost_s)


def boottime() -> float:
    """Return seconds since the kernel's start, those in suspend included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class AgentClock:
    """See the module. `floor` is the record of what verified metadata has shown, `root` where the system's files lie
    (as for the sensors)."""

    def __init__(
        self,
        floor: Path,
        root: Path,
        *,
        wall: Callable[[], float] = time.time,
        boot: Callable[[], float] = boottime,
    ) -> None:
        self._floor = floor
        self._timesync = root / TIMESYNC
        self._wall = wall
        self._boot = boot
        self._started = boot()
        self._epoch = wall() - self._started
        self._run = RunClock(self._started)

    def __call__(self) -> float:
        """Return seconds since 1970 by the wall clock as of the last tick, and what has passed since."""
        return self._epoch + self._boot()

    @property
    def boot_s(self) -> float:
        """Seconds for durations: nobody sets them, and they go on through a suspend."""
        return self._boot()

    @property
    def known(self) -> bool:
        """Whether the wall clock may be right: it is not behind what signed documents show, and no time service that
        runs here still has to set it. Anything that depends on the hour waits for that."""
        if self() < read_signed_floor(self._floor):
            return False
        waits = self._timesync.is_dir() and not (self._timesync / "synchronized").exists()
        return not waits or self._boot() - self._started > UNSYNCED_S

    def tick(self) -> ClockChange:
        """Follow the wall clock; return what has happened to time. To be called regularly, before anything is judged.

        A drift below `STEP_S` is followed without a word."""
        now = self._boot()
        epoch = self._wall() - now
        stepped, self._epoch = epoch - self._epoch, epoch
        lost = self._run.tick(now)
        return ClockChange(stepped_s=stepped if abs(stepped) > STEP_S else 0.0, lost_s=lost)
