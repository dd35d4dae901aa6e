"""A slot's captures as the supervisor sees them: whether they may go on, and what they have written today.

The worker does the writing (`edge_agent.worker.capture_writer`); when it may is decided in `edge_agent.capture.policy`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from edge_agent.capture.files import DAY_FORMAT, bytes_in, capture_files
from edge_agent.capture.policy import may_capture
from edge_agent.config.shadow_capture import CaptureConfig
from edge_agent.host.governor import Readings
from edge_agent.host.write_budget import DayWrites, spend
from edge_agent.ipc.status import CaptureStatus
from edge_contracts.limits import MIB


class CaptureQuota:
    """See the module. `clock` gives seconds since the epoch."""

    def __init__(self, settings: CaptureConfig | None, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._readings = Readings()
        self._calm = False
        self._counted = 0
        self._today = DayWrites()
        self.configure(settings)

    @property
    def allowed(self) -> bool:
        """Whether requests may be captured now."""
        if self._settings is None:
            return False
        today = spend(self._today, self._clock(), 0)
        return may_capture(self._settings, today, self._readings, calm=self._calm)

    def configure(self, settings: CaptureConfig | None) -> None:
        """Go by these settings; what is on the disk of today counts, whoever wrote it."""
        self._settings = settings
        if settings is not None and settings.folder is not None:
            now = self._clock()
            today = time.strftime(DAY_FORMAT, time.gmtime(now))
            files = [path for path in capture_files(Path(settings.folder)) if path.name.startswith(today)]
            self._today = spend(DayWrites(), now, bytes_in(files))

    def allow(self, readings: Readings, *, calm: bool) -> None:
        """Say how the box is."""
        self._readings, self._calm = readings, calm

    def count(self, total_bytes: int) -> None:
        """Say how much all workers have written since the agent's start."""
        self._today = spend(self._today, self._clock(), max(0, total_bytes - self._counted))
        self._counted = total_bytes

    def status(self) -> CaptureStatus | None:
        """Return what `agent status` shows; None for a slot that captures nothing."""
        settings = self._settings
        if settings is None or settings.folder is None:
            return None
        used = bytes_in(capture_files(Path(settings.folder)))
        return CaptureStatus(
            folder=settings.folder,
            megabytes=used / MIB,
            limit_mb=settings.max_mb,
            today_mb=spend(self._today, self._clock(), 0).bytes / MIB,
            allowed=self.allowed,
        )
