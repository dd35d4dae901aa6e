"""How the box is: its sensors, the level the governor makes of them, and the day's writes.

What follows from a level or from a tight budget is in `edge_agent.host.level_actions` and done by the supervisor;
decisions are in `edge_agent.host.governor` and `edge_agent.host.write_budget`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec.structs import asdict

from edge_agent.device_event import Detail, DeviceEvent
from edge_agent.host.governor import GovernorState, Readings, govern, pressing, short_of_memory
from edge_agent.host.level_actions import Orders, orders
from edge_agent.host.sensors import Sensors
from edge_agent.host.write_budget import tight
from edge_agent.host.write_meter import WriteMeter
from edge_agent.ipc.status import WriteStatus
from edge_contracts.limits import MIB
from edge_contracts.profile import DeviceProfile
from edge_contracts.readings import BY_NAME, Shortage

WRITES_NAME = "writes.json"


class ResourceMonitor:
    """Used on the supervisor's event loop. `sensors` are read at every look."""

    def __init__(
        self, state: Path, profile: DeviceProfile, sensors: Sensors, tell: Callable[[DeviceEvent], None]
    ) -> None:
        self._profile = profile
        self._sensors = sensors
        self._tell = tell
        self._meter = WriteMeter(state / WRITES_NAME)
        self.readings = Readings()
        self.governor = GovernorState()
        self.orders = Orders()
        self._saves_writes = False
        self._pressed: dict[str, float] = {}

    @property
    def shortages(self) -> frozenset[Shortage]:
        """What a lighter variant would save now: of each reading that asks for more than NORMAL, or did so within the
        dwell time."""
        return frozenset(saved for name in self._pressed if (saved := BY_NAME[name].eased_by) is not None)

    @property
    def words(self) -> str:
        """The level and its reasons, for people."""
        reasons = ", ".join(self.governor.reasons)
        return f"it is at {self.governor.level}" + (f" ({reasons})" if reasons else "")

    @property
    def detail(self) -> Detail:
        """The level and all that was read, for the events they cause."""
        read = {name: value for name, value in asdict(self.readings).items() if value is not None}
        return {"level": self.governor.level, "shed": self.governor.shed, **read}

    def look(self, children: Sequence[int], priorities: frozenset[int], now: float, clock: float) -> None:
        """Read everything, and give new orders. `children` are our running processes, `priorities` the slots'; `now` is
        of a clock that only goes forward, `clock` seconds since the epoch."""
        self.readings = self._sensors.read([os.getpid(), *children], now)
        before, thresholds = self.governor, self._profile.governor
        self.governor = after = govern(before, self.readings, thresholds, now, len(priorities))
        self._press(now)
        if after.level != before.level or after.shed != before.shed:
            self._tell_step(before, after)
        self._look_at_writes(children, clock)
        self.orders = orders(
            after,
            shortages=self.shortages,
            priorities=priorities,
            short_of_memory=short_of_memory(after, self.readings, thresholds),
            saves_writes=self._saves_writes,
        )

    def _press(self, now: float) -> None:
        """Note which readings press, and forget those that have not for the dwell time."""
        thresholds = self._profile.governor
        self._pressed |= dict.fromkeys(pressing(self.governor, self.readings, thresholds), now)
        calm = self.governor.level == "NORMAL"
        kept = {name: seen for name, seen in self._pressed.items() if now - seen <= thresholds.dwell_s}
        self._pressed = {} if calm else kept

    def _tell_step(self, before: GovernorState, after: GovernorState) -> None:
        """Tell of another level, or of more or fewer priorities turned away, with all that was read."""
        severity = "info" if after.level == "NORMAL" else "warning"
        step = after.level if after.level == before.level else f"{before.level} -> {after.level}"
        text = f"{step}: {', '.join(after.reasons) or 'readings stayed better for the dwell time'}"
        self._tell(DeviceEvent(event="level", severity=severity, text=text, detail=self.detail))

    @property
    def writes(self) -> WriteStatus:
        """The day's account in megabytes."""
        budget_mb = self._profile.storage.daily_writes_mb
        return WriteStatus(today_mb=self._meter.spent.bytes / MIB, budget_mb=budget_mb, saving=self._saves_writes)

    def close(self) -> None:
        """Write the account of the day down."""
        self._meter.save()

    def _look_at_writes(self, children: Sequence[int], clock: float) -> None:
        spent = self._meter.read(children, clock)
        saving = tight(spent, self._profile.storage.daily_writes_mb * MIB)
        if saving == self._saves_writes:
            return
        self._saves_writes = saving
        written = f"{self.writes.today_mb:.1f} of {self.writes.budget_mb:g} MB written today"
        detail = {"today_mb": self.writes.today_mb, "budget_mb": self.writes.budget_mb}
        if saving:
            self._meter.save()
            text = f"{written}: telemetry windows wait until tomorrow, events are written in batches"
            self._tell(DeviceEvent(event="write-budget-exceeded", severity="warning", text=text, detail=dict(detail)))
        else:
            self._tell(DeviceEvent(event="write-budget-restored", text=written, detail=dict(detail)))
