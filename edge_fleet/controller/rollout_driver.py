"""Carries planned rollouts on: takes in what devices reported, keeps the evidence, decides, signs.

Everything that a decision rests on is in the database before it is acted on, and acting twice is acting once: a
controller that is killed at any instant goes on where it was. One controller decides at a time, by a lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from edge_contracts.channel import Channel
from edge_contracts.errors import EdgewrightError
from edge_contracts.names import parse_time
from edge_contracts.selection import Facts
from edge_fleet.controller.comparison import compare
from edge_fleet.controller.followed_rollout import FollowedRollout
from edge_fleet.database.rollouts import Participant, PlannedRollout, RolloutStore, SlotChange
from edge_fleet.evidence.gates import FAILURES, Observation, Verdict, gate_rules
from edge_fleet.rollouts import channel_state
from edge_fleet.rollouts.plan import ShadowStep, WaveStep
from edge_fleet.rollouts.plan_state import StepDecision, StepProgress, StepState, decide_step
from edge_fleet.rollouts.rollout import change_rollout, read_channel
from edge_fleet.rollouts.waves import (
    GIVEN_UP,
    Standing,
    facts_of,
    is_member,
    percentage_for,
    standing_of,
    strata_for,
)
from edge_fleet.signing.workspace import FleetWorkspace

LOOK_S = 1.0
"""How often rollouts are looked at."""

LEASE_S = 15.0
"""How long a controller that has died keeps others from deciding."""

LEASE = "rollouts"

STARTING_S = 600.0
"""How long after its plan was stored a rollout may be signed."""


class RolloutDriver:
    """Looks at every planned rollout that is running, and does what is due."""

    def __init__(
        self,
        fleet: FleetWorkspace,
        url: str,
        holder: str,
        log: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the database. `holder` is this controller's name among several, `clock` gives seconds since 1970."""
        self._clock = clock
        self._fleet = fleet
        self._url = url
        self._holder = holder
        self._log = log
        self._store = RolloutStore(url)
        self._followed: dict[str, FollowedRollout] = {}
        self._next = 0.0
        self._failure = ""

    def close(self) -> None:
        """Close the database."""
        self._store.close()

    def look(self, now: float) -> None:
        """Do what is due at monotonic time `now`. What fails is logged once and tried again."""
        if now < self._next:
            return
        self._next = now + LOOK_S
        try:
            self._look()
        except (EdgewrightError, SQLAlchemyError, OSError) as error:
            text = str(error)[:300]
            if text != self._failure:
                self._log(f"rollouts: {text}")
            self._failure = text
            self._followed.clear()
        else:
            self._failure = ""

    def _look(self) -> None:
        running = self._store.planned(status=("starting", "running"))
        if not running:
            self._followed.clear()
            return
        if not self._store.lease(LEASE, self._holder, self._clock(), LEASE_S):
            self._followed.clear()
            return
        repository = self._fleet.read(datetime.now(UTC))
        for planned in running:
            channel = read_channel(repository, planned.channel)
            if channel is not None:
                self._drive(planned, channel)

    def _drive(self, planned: PlannedRollout, channel: Channel) -> None:
        followed = self._followed.get(planned.rollout)
        if followed is None:
            followed = self._followed[planned.rollout] = FollowedRollout(self._store, planned)
        followed.planned = planned
        if channel.rollout != planned.rollout:
            if planned.status != "starting" or self._clock() - planned.entered > STARTING_S:
                self._ended(planned, channel)
            return
        if planned.status == "starting":
            self._store.set_status(planned.rollout, "running")
        if followed.undone is not None:
            self._act(followed, channel, followed.undone)
            return
        moment = self._clock()
        self._follow(followed)
        self._settle(followed, moment)
        followed.read_evidence(self._store)
        state, verdict = self._state(followed, channel, moment), followed.book.verdict()
        made = decide_step(planned.plan, state, verdict)
        self._record(followed, made, state, verdict)
        if made.action != "stay":
            self._log(f"rollout {planned.rollout}: {made.why}")
            self._act(followed, channel, made)

    def _follow(self, followed: FollowedRollout) -> None:
        """Take in what was reported since."""
        planned = followed.planned
        after = planned.change
        while reports := self._store.changes(planned.channel, after):
            seen: dict[str, Participant] = {}
            evidence: list[Observation] = []
            for report in reports:
                standing = followed.note(report)
                if standing is not None:
                    self._take(followed, standing, seen, evidence)
            after = reports[-1][-1].id
            self._store.follow(planned.rollout, after, seen.values(), evidence, self._now())
        followed.planned = msgspec.structs.replace(planned, change=after)

    def _take(
        self, followed: FollowedRollout, change: SlotChange, seen: dict[str, Participant], evidence: list[Observation]
    ) -> None:
        planned = followed.planned
        if change.rollout != planned.rollout or change.manifest != planned.manifest:
            return
        before = followed.participants.get(change.device)
        after = self._participant(planned, before, change)
        if after == before:
            return
        seen[change.device] = after
        followed.keep(after)
        if after.outcome is not None and (before is None or before.outcome is None):
            evidence.append(_outcome(after))

    def _participant(self, planned: PlannedRollout, before: Participant | None, change: SlotChange) -> Participant:
        """Return a device after what it reported. It is observed from when the release serves."""
        when = parse_time(change.time, what="time").timestamp()
        known = before or Participant(device=change.device, state=change.state)
        outcome = known.outcome
        if outcome is None and (change.state in GIVEN_UP or change.state == "committed"):
            outcome = "passed" if change.state == "committed" else "failed"
        message, until = known.message, known.observe_until
        if change.state in ("shadow", "active", "committed") and message is None:
            message = self._store.last_message()
        if change.state == "committed" and until is None:
            until = when + planned.plan.observe_s
        same = (known.state, known.reason, known.compared) == (change.state, change.reason, change.compared)
        return msgspec.structs.replace(
            known,
            state=change.state,
            reason=change.reason,
            compared=change.compared,
            changed=known.changed if same and before is not None else when,
            outcome=outcome,
            message=message,
            observe_until=until,
        )

    def _settle(self, followed: FollowedRollout, moment: float) -> None:
        """Do what time alone brings: devices fall silent, or have been observed for long enough."""
        for one in followed.due(moment):
            if followed.silent_at(one) <= moment:
                self._fall_silent(followed, one)
            else:
                self._observe(followed, one)

    def _fall_silent(self, followed: FollowedRollout, one: Participant) -> None:
        """Count a device that began and says nothing more as failed."""
        silent = msgspec.structs.replace(one, outcome="failed", reason="silent")
        self._store.follow(followed.planned.rollout, 0, [silent], [_outcome(silent)], self._now())
        followed.keep(silent)

    def _observe(self, followed: FollowedRollout, one: Participant) -> None:
        """Compare a device that has served the release long enough with others that have not got it."""
        observed = msgspec.structs.replace(one, observed=True)
        evidence, used = compare(self._store, followed, observed, gate_rules(followed.planned.plan.gates))
        self._store.observe(followed.planned.rollout, observed, used, evidence, self._now())
        for device in used:
            followed.use(device)
        followed.keep(observed)

    def _state(self, followed: FollowedRollout, channel: Channel, moment: float) -> StepState:
        planned = followed.planned
        step = planned.plan.steps[planned.step]
        progress = StepProgress()
        if isinstance(step, WaveStep | ShadowStep):
            progress = _progress(followed, channel, step)
        return StepState(
            step=planned.step,
            elapsed_s=max(moment - planned.entered, 0.0),
            paused=channel.paused,
            approved=self._store.approval(planned.rollout, planned.step),
            progress=progress,
        )

    def _record(self, followed: FollowedRollout, made: StepDecision, state: StepState, verdict: Verdict) -> None:
        """Store a decision with what it was made from; that nothing is due only when the reason is another one."""
        told = (state.step, state.progress, followed.evidence, state.paused)
        if made.action == "stay" and told == followed.told:
            return
        followed.told = told
        log_e = {name: result.log_e for name, result in verdict.gates.items()}
        self._store.decide(followed.planned.rollout, made, state, followed.evidence, log_e, self._now())

    def _act(self, followed: FollowedRollout, channel: Channel, made: StepDecision) -> None:
        """Sign what was decided, unless it is signed already, and go on from there."""
        planned = followed.planned
        followed.undone = made
        if made.action == "next":
            self._enter(followed, channel, planned.step + 1)
        elif made.action == "finish":
            self._sign(planned, channel_state.finish)
            self._store.set_status(planned.rollout, "finished")
        else:
            if planned.plan.on_failure == "abort":
                self._sign(planned, channel_state.abort)
            elif not channel.paused:
                self._sign(planned, channel_state.pause)
            self._store.set_status(planned.rollout, "stopped")
        followed.undone = None

    def _enter(self, followed: FollowedRollout, channel: Channel, number: int) -> None:
        planned = followed.planned
        step = planned.plan.steps[number]
        if isinstance(step, WaveStep | ShadowStep):
            mode: channel_state.Mode = "live" if isinstance(step, WaveStep) else "shadow"
            wanted = percentage_for(step, followed.roster.values(), channel.selectors, planned.rollout)
            wider = max(wanted, channel.percentage)
            strata = strata_for(step, followed.roster.values(), channel.selectors, planned.rollout, channel.strata)
            plan = planned.plan
            rules = channel_state.WaveRules(gates=plan.gates_of(step), window=plan.window_of(step), strata=strata)
            held = channel_state.WaveRules(gates=channel.gates, window=channel.window, strata=channel.strata)
            if wider > channel.percentage or mode != channel.mode or rules != held:
                devices = [facts_of(one) for one in followed.roster.values()] if channel.availability else []
                self._sign(planned, partial(channel_state.advance, percentage=wider, mode=mode, rules=rules), devices)
        self._store.enter(planned.rollout, number, self._clock())

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _sign(
        self, planned: PlannedRollout, change: Callable[[Channel], Channel], devices: Iterable[Facts] = ()
    ) -> None:
        change_rollout(self._fleet, planned.channel, change, datetime.now(UTC), db=self._url, devices=devices)

    def _ended(self, planned: PlannedRollout, channel: Channel) -> None:
        """The channel has moved on: by a decision that was signed and not yet stored, or by a person."""
        self._followed.pop(planned.rollout, None)
        if channel.stable is not None and channel.stable.manifest_sha256 == planned.manifest:
            self._store.set_status(planned.rollout, "finished")
        else:
            self._store.set_status(planned.rollout, "stopped" if planned.manifest in channel.blocked else "ended")


def _progress(followed: FollowedRollout, channel: Channel, step: WaveStep | ShadowStep) -> StepProgress:
    """Return how far a step is."""
    planned, requests = followed.planned, followed.planned.plan.device.shadow_requests
    percentage, strata, selectors = channel.percentage, channel.strata, channel.selectors

    def standing(device: str) -> Standing | None:
        report = followed.roster.get(device)
        if report is None or not is_member(report, selectors, followed.place(device), percentage, strata):
            return None
        return standing_of(report, followed.participants.get(device), step, requests)

    changed, followed.changed = followed.changed, set()
    of = (planned.step, percentage, strata, selectors)
    return followed.count.progress(of, followed.roster, changed, standing)


def _outcome(one: Participant) -> Observation:
    failed = one.outcome == "failed"
    text = f"{one.state}: {one.reason}" if failed and one.reason else one.state
    return Observation(gate=FAILURES, device=one.device, value=1.0 if failed else 0.0, text=text)
