"""What is told of a step of a slot's update. Which steps there are is in `edge_agent.update.state_machine`."""

from __future__ import annotations

from edge_agent.device_event import Detail, DeviceEvent
from edge_agent.update.record import UpdateRecord


def transition_event(before: UpdateRecord, after: UpdateRecord) -> DeviceEvent | None:
    """Return what to tell of the step from one record to the next; None of one not worth it, as of gates alone."""
    if _visible(after) == _visible(before):
        return None
    detail: Detail = {"from": before.state, "to": after.state}
    if after.candidate is not None:
        detail |= {"version": after.candidate.version, "manifest_sha256": after.candidate.manifest_sha256}
        detail |= {"rollout": after.candidate.rollout or "", "serial": after.candidate.serial}
    if after.reason is not None:
        detail["reason"] = after.reason
    severity = "warning" if after.state in ("rejected", "rolled_back") else "info"
    text = after.state if after.reason is None else f"{after.state}: {after.reason}"
    event = f"update-{after.state.replace('_', '-')}"
    return DeviceEvent(event=event, severity=severity, slot=after.slot, text=text[:2000], detail=detail)


def _visible(record: UpdateRecord) -> tuple[object, ...]:
    candidate = None if record.candidate is None else record.candidate.manifest_sha256
    return (record.state, record.reason, candidate, record.serving)
