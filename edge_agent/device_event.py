"""Something that happened, on its way to the log, the audit log and the fleet. Who passes it on is the supervisor."""

from __future__ import annotations

from msgspec import Struct, field

Detail = dict[str, str | int | float | bool]


class DeviceEvent(Struct, frozen=True, kw_only=True):
    """Something to tell the fleet and the audit log. `log` are the last lines of the processes concerned: for the fleet
    only."""

    event: str
    severity: str = "info"
    slot: str | None = None
    text: str = ""
    detail: Detail = field(default_factory=dict)
    log: str = ""
