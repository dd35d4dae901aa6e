"""Making a telemetry window out of what a slot has counted. Adding up is in `edge_agent.telemetry.window_totals`."""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.host.governor import Readings, known
from edge_agent.supervisor.slots.slot import Slot
from edge_agent.telemetry.outbox import Outbox
from edge_contracts.shadow import ShadowCounts
from edge_contracts.state import Level
from edge_contracts.telemetry import TelemetryWindow

Frame = tuple[str, str, str, str]
"""Device, boot id, and the window's start and end in UTC."""


def gauges(level: Level, readings: Readings, outbox: Outbox) -> dict[str, float]:
    """Return how the box is, by name: for the slots' `/metrics` and, the box's own part, for their windows."""
    found = {"level": {"NORMAL": 0.0, "CONSERVE": 1.0, "CRITICAL": 2.0}[level]}
    found |= {"spooled": float(outbox.spooled), "dropped": float(outbox.dropped)}
    return found | known(readings)


def shadow_gauges(counts: ShadowCounts | None) -> dict[str, float]:
    """Return what the running shadow has found so far, by name, for its slot's `/metrics`; nothing without one. Windows
    have the whole counts."""
    if counts is None:
        return {}
    names = ("compared", "agreed", "failed", "deaths")
    found = {f"shadow_{name}": float(getattr(counts, name)) for name in names}
    return found | {"shadow_disagreed": float(counts.classified - counts.agreed)}


def window_message(
    slot: Slot, frame: Frame, level: Level, gauges: dict[str, float]
) -> Callable[[int], TelemetryWindow]:
    """Return what builds the slot's window from its sequence number; what was counted is copied now."""
    device, boot_id, start, end = frame
    tally, report = slot.window, slot.reported()
    resources = {name: value for name, value in gauges.items() if name not in ("level", "spooled", "dropped")}
    memory = [worker.memory_mb for worker in slot.serving.workers[:1]]
    if memory and memory[0] is not None:
        resources["worker_memory_mb"] = memory[0]
    counters = {name: value for name, value in tally.counters.items() if value}
    served_by = {name: value for name, value in tally.served_by.items() if value}
    latency = tuple(tally.latency_log2_us)
    histograms = {name: tuple(bins) for name, bins in tally.histograms.items()}
    drift = slot.drift.close(slot.manifest if histograms else None, histograms)
    shadow = slot.taps.shadowing.close_window()

    def build(sequence: int) -> TelemetryWindow:
        return TelemetryWindow(
            device=device,
            boot_id=boot_id,
            sequence=sequence,
            start=start,
            end=end,
            slot=report.slot,
            model=slot.model,
            version=report.serving.version if report.serving else None,
            variant=report.variant,
            level=level,
            counters=counters,
            served_by=served_by,
            latency_log2_us=latency,
            resources=resources,
            histograms=histograms,
            drift=drift,
            shadow=shadow,
        )

    return build
