"""Whether the state folder takes anything: said when it stops and when it does again.

A worn card is made read-only by the kernel, at boot or under the running agent. Then the agent serves from what is
there and installs nothing; telemetry is kept in memory. What the disk refuses for want of room is each writer's own
business.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.device_event import DeviceEvent
from edge_agent.storage.audit_log import AuditLog
from edge_agent.storage.state_dir import StateFolder
from edge_agent.telemetry.outbox import Outbox

READ_ONLY = "state-read-only"
"""The fault in the reported state, and the event."""


class StorageMonitor:
    """Used on the supervisor's event loop."""

    def __init__(
        self,
        state: StateFolder,
        audit: AuditLog,
        outbox: Outbox,
        tell: Callable[[DeviceEvent], None],
        reconnect: Callable[[], None],
    ) -> None:
        """`reconnect` has the uplink begin anew with the oldest message."""
        self._state = state
        self._audit = audit
        self._outbox = outbox
        self._tell = tell
        self._reconnect = reconnect
        self._read_only = False

    @property
    def trouble(self) -> str:
        """Why nothing can be kept, for people; empty while all is well."""
        return f"the state folder {self._state.root} is read-only" if self._read_only else ""

    @property
    def faults(self) -> tuple[str, ...]:
        """What the reported state of every slot says about it."""
        return (READ_ONLY,) if self._read_only else ()

    def look(self) -> None:
        """Look, and tell of a change. To be called every few seconds."""
        read_only = not self._writes()
        if not read_only and not self._outbox.durable and self._outbox.restore():
            self._reconnect()
        if read_only == self._read_only:
            return
        self._read_only = read_only
        if read_only:
            text = f"{self.trouble}: it serves what is there, installs nothing and keeps telemetry in memory"
            self._tell(DeviceEvent(event=READ_ONLY, severity="error", text=text))
        else:
            text = "the state folder can be written again; the audit log and tombstones name what was not kept"
            self._tell(DeviceEvent(event="state-writable", text=text))

    def _writes(self) -> bool:
        """Return whether the folder can be written; by writing only where something has failed, for a card's sake."""
        if self._read_only or self._audit.unwritten or not self._outbox.durable:
            return self._state.takes_files()
        return self._state.writable
