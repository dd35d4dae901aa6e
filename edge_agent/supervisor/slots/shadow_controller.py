"""One slot's shadow over time: when a process runs beside the worker, and what it has found so far.

It runs while a candidate is in shadow and the box has room, is left alone to die, and starts again after a while. What
is found is summed up here for telemetry, the reported state and the gates; judging it is in
`edge_agent.answer_comparison`. Counts are of this run of the agent; the fleet adds up the windows.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

import msgspec

from edge_agent.answer_comparison import plus, since, summary, words
from edge_agent.backoff import doubling
from edge_agent.config.shadow_capture import ShadowConfig
from edge_agent.device_event import DeviceEvent
from edge_agent.host.governor import Readings
from edge_agent.ipc.mirror import empty, mirror_pair
from edge_agent.ipc.shadow import ShadowPlan
from edge_agent.supervisor.slots.shadow_process import ShadowDeath, ShadowProcess
from edge_contracts.shadow import ShadowCounts, ShadowSummary

SPARE_MEMORY_MB = 64.0
"""What has to be left of the memory beside all that a shadow may use, before one is started."""

BUSY_PERCENT = 70.0
"""Share of the CPU that our processes may use, for one to be started."""

RESTART_BASE_S, RESTART_CAP_S = 1.0, 600.0

_log = logging.getLogger(__name__)


class ShadowController:
    """See the module. Runs on the supervisor's event loop."""

    def __init__(self, slot: str, tell: Callable[[DeviceEvent], None]) -> None:
        self._slot = slot
        self._tell = tell
        self._workers_end, self._shadow_end = mirror_pair()
        self._calm = False
        self._readings = Readings()
        self._process: ShadowProcess | None = None
        self._starting: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._counted: ShadowCounts | None = None  # of the process that runs
        self._window: ShadowCounts | None = None
        self.totals: ShadowCounts | None = None
        self.reported: ShadowSummary | None = None

    @property
    def mirror(self) -> socket.socket:
        """The end that the slot's workers inherit."""
        return self._workers_end

    @property
    def watches(self) -> bool:
        """Whether a shadow is there that can be shown something."""
        return self._process is not None and self._process.beat is not None and self._process.beat.ready

    def allow(self, readings: Readings, *, calm: bool) -> None:
        """Say how the box is."""
        self._readings, self._calm = readings, calm

    def tick(self, plan: ShadowPlan | None, settings: ShadowConfig) -> None:
        """Follow what the slot wants: a shadow by `plan`, whose `mirror_fd` is set here, or none. To be called about
        once a second."""
        if plan is not None:
            plan = msgspec.structs.replace(plan, mirror_fd=self._shadow_end.fileno())
            self._begin(plan)
        elif self.totals is not None and self._process is None:
            self._end()
        self._look_after(plan)
        if plan is not None and self._process is None and self._starting is None and self._has_room(plan):
            self._starting = asyncio.create_task(self._start(plan, settings.deadline_s))

    def close_window(self) -> ShadowCounts | None:
        """Return what was counted since the last window, None if nothing was; and report where it stands now."""
        window, self._window = self._window, None
        self.reported = None if self.totals is None else summary(self.totals)
        return window

    async def stop(self) -> None:
        """End the shadow."""
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._process is not None:
            self._process.kill()
            await self._process.ended()
            self._look_after(None)
        self._workers_end.close()
        self._shadow_end.close()

    def _begin(self, plan: ShadowPlan) -> None:
        """Start to count anew for another candidate."""
        sha256 = plan.rung.manifest_sha256
        if self.totals is None or self.totals.manifest_sha256 != sha256:
            self.totals = ShadowCounts(version=plan.rung.version, manifest_sha256=sha256)
            self._window = None  # windows are of one candidate
            self._not_before = 0.0

    def _end(self) -> None:
        """The candidate is not in shadow any more: tell what it has shown."""
        if self.totals is not None and self.totals.compared + self.totals.failed:
            self._tell(DeviceEvent(event="shadow-ended", slot=self._slot, text=words(self.totals)))
        self.totals = self.reported = None

    def _look_after(self, plan: ShadowPlan | None) -> None:
        process = self._process
        if process is None:
            return
        if process.beat is not None:
            self._count(process.beat.counts)
        if process.death is not None:
            self._process = self._counted = None
            if not process.death.expected and self._is_of(process.plan.rung.manifest_sha256):
                self._mourn(process.death)
        elif plan != process.plan or not self._calm:
            process.kill()
        else:
            process.watch()

    def _count(self, counts: ShadowCounts) -> None:
        if not self._is_of(counts.manifest_sha256):
            return  # the last words of another candidate
        news = since(self._counted, counts)
        self._counted = counts
        if news.compared or news.failed:
            self._add(news)

    def _is_of(self, manifest_sha256: str) -> bool:
        return self.totals is not None and self.totals.manifest_sha256 == manifest_sha256

    def _add(self, counts: ShadowCounts) -> None:
        assert self.totals is not None
        self.totals = plus(self.totals, counts)
        self._window = counts if self._window is None else plus(self._window, counts)

    def _mourn(self, death: ShadowDeath) -> None:
        assert self.totals is not None
        died = ShadowCounts(version=self.totals.version, manifest_sha256=self.totals.manifest_sha256, deaths=1)
        self._add(died)
        wait_s = doubling(self.totals.deaths - 1, base_s=RESTART_BASE_S, cap_s=RESTART_CAP_S)
        self._not_before = asyncio.get_running_loop().time() + wait_s
        text = f"shadow of {died.version} ended: {death.reason}; no request was affected"
        detail: dict[str, str | int | float | bool] = {"pid": death.pid, "code": death.code, "reason": death.reason}
        self._tell(DeviceEvent(event="shadow-died", severity="warning", slot=self._slot, text=text, detail=detail))

    def _has_room(self, plan: ShadowPlan) -> bool:
        readings = self._readings
        left = (readings.available_memory_mb, readings.memory_limit_left_mb)
        memory = min((value for value in left if value is not None), default=None)
        cpu = readings.cpu_percent
        needs_mb = (plan.memory_limit_mb or 0.0) + SPARE_MEMORY_MB
        fits = (memory is None or memory >= needs_mb) and (cpu is None or cpu <= BUSY_PERCENT)
        return self._calm and fits and asyncio.get_running_loop().time() >= self._not_before

    async def _start(self, plan: ShadowPlan, deadline_s: float) -> None:
        empty(self._shadow_end)
        try:
            self._process = await ShadowProcess.start(plan, deadline_s)
        except OSError as error:
            _log.error("slot %s: cannot start the shadow: %s", self._slot, error)
            self._not_before = asyncio.get_running_loop().time() + RESTART_CAP_S
        finally:
            self._starting = None
