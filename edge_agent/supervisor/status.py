"""What `agent status` shows: asked of a running agent, or read from the records when none runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edge_agent.ipc.status import SlotStatus
from edge_contracts.state import SlotState

if TYPE_CHECKING:
    from edge_agent.supervisor.slots.slot import Slot


def slot_status(slot: Slot, state: SlotState) -> SlotStatus:
    """Return a running slot's status; `state` is what is reported of it."""
    return SlotStatus(
        **msgspec.structs.asdict(state),
        http=slot.http,
        workers=tuple(worker.pid for worker in slot.serving.workers),
        counters=dict(slot.totals.counters),
        nodes=slot.serving.nodes,
        rejected=slot.record.rejected,
        shadow_counts=slot.taps.shadowing.totals,
        captured=slot.taps.capturing.status(),
        unloaded=slot.serving.unloaded,
    )
