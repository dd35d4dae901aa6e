"""A planned rollout in the controller's memory: what is stored, read once and added to."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

from edge_contracts.selection import bucket
from edge_fleet.controller.control_devices import ControlDevices
from edge_fleet.controller.wave_count import WaveCount
from edge_fleet.database.rollouts import Participant, PlannedRollout, RolloutStore, SlotChange
from edge_fleet.database.telemetry import GONE
from edge_fleet.evidence.gates import EvidenceBook, gate_rules
from edge_fleet.rollouts.plan import ShadowStep, Step, WaveStep
from edge_fleet.rollouts.plan_state import StepDecision
from edge_fleet.rollouts.waves import AT_WORK, passed_shadow, worst


class FollowedRollout:
    """One rollout as the controller knows it. `undone` is a decision that is stored and perhaps not acted on yet;
    `changed` are the devices of which something is new since the step was counted."""

    def __init__(self, store: RolloutStore, planned: PlannedRollout) -> None:
        """Read what is stored."""
        self.planned = planned
        self.roster: dict[str, SlotChange] = {}
        self.changed: set[str] = set()
        self.participants: dict[str, Participant] = {}
        self.count = WaveCount()
        self.free = ControlDevices(self.place)
        self._places: dict[str, float] = {}
        self._due: list[tuple[float, str]] = []
        self._used: set[str] = set()
        self._due_of = -1  # the step whose deadlines they are
        self._slots: dict[str, dict[str, SlotChange]] = {}
        for one in store.roster(planned.channel, planned.change):
            self.note([one])
        for participant in store.participants(planned.rollout):
            self.keep(participant)
        for device in store.used_controls(planned.rollout):
            self.use(device)
        self.book = EvidenceBook(gate_rules(planned.plan.gates), planned.plan.alpha, planned.plan.first_devices)
        self.evidence = 0
        self.told: tuple[object, ...] | None = None
        made = store.decisions(planned.rollout)
        last = made[-1] if made else None
        undone = last is not None and last.action != "stay" and last.state.step == planned.step
        self.undone = StepDecision(action=last.action, why=last.why) if last is not None and undone else None  # type: ignore[arg-type]
        self.read_evidence(store)

    def note(self, report: Sequence[SlotChange]) -> SlotChange | None:
        """Take in what a device reported of its slots; return what stands for it now, None without any on the
        channel."""
        device = report[0].device
        self.changed.add(device)
        slots = self._slots.setdefault(device, {})
        for change in report:
            slots.pop(change.slot, None)
            if change.state != GONE:
                slots[change.slot] = change
        if not slots:
            self.roster.pop(device, None)
            self.free.drop(device)
            return None
        standing = worst(slots.values(), self.planned.rollout, self.planned.manifest)
        self.roster[device] = standing
        if device not in self.participants and device not in self._used:
            self.free.put(standing)
        return standing

    def place(self, device: str) -> float:
        """Return a device's place in the rollout."""
        found = self._places.get(device)
        if found is None:
            found = self._places[device] = bucket(self.planned.rollout, device)
        return found

    def keep(self, one: Participant) -> None:
        """Take in what is known of a device that said something about the rollout."""
        self.participants[one.device] = one
        self.changed.add(one.device)
        self.free.drop(one.device)
        if self._due_of == self.planned.step:
            self._expect(one)

    def use(self, device: str) -> None:
        """Note that a device was compared with one that has the release; it is not a second time."""
        self._used.add(device)
        self.free.drop(device)

    def due(self, moment: float) -> list[Participant]:
        """Return the devices of which time alone has changed something at `moment`: `silent_at`, `observe_at`."""
        if self._due_of != self.planned.step:
            self._due_of, self._due = self.planned.step, []
            for one in self.participants.values():
                self._expect(one)
        found: dict[str, Participant] = {}
        while self._due and self._due[0][0] <= moment:
            one = self.participants[heapq.heappop(self._due)[1]]
            if min(self.silent_at(one), observe_at(one)) <= moment:
                found[one.device] = one
        return list(found.values())

    def _expect(self, one: Participant) -> None:
        due = min(self.silent_at(one), observe_at(one))
        if due < math.inf:
            heapq.heappush(self._due, (due, one.device))

    def silent_at(self, one: Participant) -> float:
        """Return when a device counts as silent: the step's deadline after it last said something while at work."""
        plan = self.planned.plan
        return _silent_at(one, plan.steps[self.planned.step], plan.device.shadow_requests)

    def read_evidence(self, store: RolloutStore) -> None:
        """Take in the observations that were stored since."""
        for number, observation in store.evidence(self.planned.rollout, self.evidence):
            self.book.add(observation)
            self.evidence = number


def observe_at(one: Participant) -> float:
    """Return when a device has served the release long enough to be compared."""
    return math.inf if one.observed or one.observe_until is None else one.observe_until


def _silent_at(one: Participant, step: Step, shadow_requests: int) -> float:
    if not isinstance(step, WaveStep | ShadowStep) or one.outcome is not None or one.state not in AT_WORK:
        return math.inf
    through = isinstance(step, ShadowStep) and passed_shadow(one, shadow_requests)
    return math.inf if through else one.changed + step.deadline_s
