"""Something that happened, on its way to the log, the audit log and the fleet. Who passes it on is the supervisor."""

from __future__ import annotations

from msgspec import Struct, field

from edge_agent.ipc.updater import DeltaUnused, DeltaUsed, Trouble

Detail = dict[str, str | int | float | bool]


class News(Struct, frozen=True, kw_only=True):
    """Something to tell the fleet and the audit log."""

    event: str
    severity: str = "info"
    slot: str | None = None
    text: str = ""
    detail: Detail = field(default_factory=dict)


def trouble_news(trouble: Trouble) -> News:
    """Return what is told of an updater's trouble."""
    detail: Detail = {"reason": trouble.reason, "fault": trouble.fault}
    return News(event="update-refused", severity="warning", slot=trouble.slot, text=trouble.text, detail=detail)


def delta_news(message: DeltaUsed | DeltaUnused) -> News:
    """Return what is told of a delta that was tried."""
    if isinstance(message, DeltaUsed):
        text = f"{message.path} was made from an older one: {message.spared} bytes were not fetched"
        spared: Detail = {"path": message.path, "fetched": message.fetched, "spared": message.spared}
        return News(event="delta-used", slot=message.slot, text=text, detail=spared)
    problem: Detail = {"path": message.path, "reason": message.reason}
    return News(event="delta-unused", severity="warning", slot=message.slot, text=message.text, detail=problem)
