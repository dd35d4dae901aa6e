"""Whether anybody still asks a slot. A camera's script that has ended is no failure of the slot's, and nobody else on
the device would tell of it.

Every way in counts, the data topics too; what arrives on those is also watched by itself
(`edge_agent.supervisor.mqtt_gateway.slot_bridge`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edge_agent.device_event import DeviceEvent
from edge_agent.supervisor.slots.freshness import NO_INPUT, Freshness

_ASKED = ("requests", "rejected", "shed", "lost")
"""Counters of what came, whatever became of it."""


class StaleInputMonitor:
    """See the module. `clock` gives seconds and only goes forward; `tell` hears of `input-stale` and `input-fresh`
    events."""

    def __init__(
        self, slot: str, stale_after_s: float | None, clock: Callable[[], float], tell: Callable[[DeviceEvent], None]
    ) -> None:
        self._slot, self._clock, self._tell = slot, clock, tell
        self._fresh = Freshness(stale_after_s=stale_after_s, last=clock())
        self._asked = 0

    @property
    def faults(self) -> tuple[str, ...]:
        return (NO_INPUT,) if self._fresh.stale else ()

    @property
    def gauges(self) -> dict[str, float]:
        """Return the seconds since the last request, where they are watched."""
        watched = self._fresh.stale_after_s is not None
        return {"request_age_s": round(self._clock() - self._fresh.last, 3)} if watched else {}

    def configure(self, stale_after_s: float | None) -> None:
        """Allow another silence from now on; None allows any."""
        self._fresh.stale_after_s = stale_after_s

    def look(self, totals: Mapping[str, int]) -> None:
        """Take the counters of the slot since its start. To be called about once a second."""
        now, asked = self._clock(), sum(totals.get(name, 0) for name in _ASKED)
        if asked != self._asked:
            self._asked = asked
            if self._fresh.seen(now):
                self._say("input-fresh", "info", "requests resumed")
        elif self._fresh.look(now):
            self._say("input-stale", "warning", f"no request for {now - self._fresh.last:.1f} s")

    def _say(self, event: str, severity: str, text: str) -> None:
        self._tell(DeviceEvent(event=event, severity=severity, slot=self._slot, text=text))
