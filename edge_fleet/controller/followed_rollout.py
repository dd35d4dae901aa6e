"""A planned rollout in the controller's memory: what is stored, read once and added to."""

from __future__ import annotations

from collections.abc import Sequence

from edge_fleet.database.rollouts import PlannedRollout, RolloutStore, SlotChange
from edge_fleet.database.telemetry import GONE
from edge_fleet.evidence.gates import EvidenceBook, gate_rules
from edge_fleet.rollouts.plan_state import StepDecision, StepProgress
from edge_fleet.rollouts.waves import worst


class FollowedRollout:
    """One rollout as the controller knows it. `undone` is a decision that is stored and perhaps not acted on yet;
    `due` the earliest time at which time alone changes something; `events` counts whatever else does."""

    def __init__(self, store: RolloutStore, planned: PlannedRollout) -> None:
        """Read what is stored."""
        self.planned = planned
        self.roster: dict[str, SlotChange] = {}
        self._slots: dict[str, dict[str, SlotChange]] = {}
        for one in store.roster(planned.channel, planned.change):
            self.note([one])
        self.participants = {one.device: one for one in store.participants(planned.rollout)}
        self.controls = store.used_controls(planned.rollout)
        self.book = EvidenceBook(gate_rules(planned.plan.gates), planned.plan.alpha, planned.plan.first_devices)
        self.evidence = 0
        self.told: tuple[object, ...] | None = None
        self.progress: tuple[tuple[object, ...], StepProgress] | None = None
        self.due = 0.0
        self.events = 0
        made = store.decisions(planned.rollout)
        last = made[-1] if made else None
        undone = last is not None and last.action != "stay" and last.state.step == planned.step
        self.undone = StepDecision(action=last.action, why=last.why) if last is not None and undone else None  # type: ignore[arg-type]
        self.read_evidence(store)

    def note(self, report: Sequence[SlotChange]) -> SlotChange | None:
        """Take in what a device reported of its slots; return what stands for it now, None without any on the
        channel."""
        device = report[0].device
        slots = self._slots.setdefault(device, {})
        for change in report:
            slots.pop(change.slot, None)
            if change.state != GONE:
                slots[change.slot] = change
        if not slots:
            self.roster.pop(device, None)
            return None
        standing = worst(slots.values(), self.planned.rollout, self.planned.manifest)
        self.roster[device] = standing
        return standing

    def read_evidence(self, store: RolloutStore) -> None:
        """Take in the observations that were stored since."""
        for number, observation in store.evidence(self.planned.rollout, self.evidence):
            self.book.add(observation)
            self.evidence = number
