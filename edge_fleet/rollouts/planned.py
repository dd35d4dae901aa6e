"""Starting a rollout under a plan, foreseeing its waves, and making its decisions again from the stored evidence."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec

from edge_contracts.channel import Availability, Channel, Strata
from edge_contracts.codec import Record
from edge_fleet.database.rollouts import DecisionRow, PlannedRollout, RolloutStore, SlotChange
from edge_fleet.database.telemetry import GONE
from edge_fleet.errors import RolloutError
from edge_fleet.evidence.gates import EvidenceBook, gate_rules
from edge_fleet.releases.downloads import DownloadSizes
from edge_fleet.rollouts.channel_state import Plan
from edge_fleet.rollouts.plan import RolloutPlan, ShadowStep, WaveStep
from edge_fleet.rollouts.plan_state import decide_step
from edge_fleet.rollouts.rollout import find_release, next_rollout_name, read_channel, start_rollout
from edge_fleet.rollouts.rosters import shards_for
from edge_fleet.rollouts.waves import facts_of, members, percentage_for, strata_for
from edge_fleet.signing.workspace import FleetWorkspace

EVERYTHING = 2**62
"""A row number beyond all: "as of now"."""


class WaveForecast(Record, frozen=True, kw_only=True):
    """Who would be in a step, of the devices that have reported: how many, how many of them are new in it and online,
    the new ones by board and by site (`tag.site`), and the bytes that those download."""

    step: int
    kind: str
    percent: float
    devices: int
    new: int
    online: int
    boards: dict[str, int]
    sites: dict[str, int]
    bytes: int


class Forecast(Record, frozen=True, kw_only=True):
    """What a plan would do: `bundle_bytes` is what a device downloads that has nothing of it, `seconds_at_least` how
    long it takes if every device is at once online and done."""

    rollout: str
    matching: int
    bundle_bytes: int
    seconds_at_least: float
    waves: tuple[WaveForecast, ...]


class ReplayedDecision(Record, frozen=True, kw_only=True):
    """A decision as it was made, and whether it comes out again in every bit."""

    made: DecisionRow
    action: str
    why: str
    same: bool


def start_planned(
    fleet: FleetWorkspace, plan: RolloutPlan, now: datetime, *, db: str | None = None, supersede: bool = False
) -> Channel:
    """Store a plan and sign the first step of its rollout, in place of one that runs if it may `supersede` it. A
    controller carries it on.

    Raises as `start_rollout` does; RolloutError also if the plan's name was used before, whose evidence would count.
    """
    store = RolloutStore(db or fleet.store_url)
    try:
        repository = fleet.read(now)
        before = read_channel(repository, plan.channel)
        release = find_release(repository, plan.model, plan.version)
        name = plan.name or next_rollout_name(before, plan.version)
        if any(one.rollout == name and one.status != "starting" for one in store.planned()):
            raise RolloutError("a rollout of this name was planned before", subject=name, hint="give another name")
        roster = _devices(store, plan.channel)
        first = _start(plan, name, roster, _turns(plan, before, len(roster), now))
        first = msgspec.structs.replace(first, supersede=supersede)
        # Stored before it is signed: a rollout that is on the channel always has its plan.
        store.withdraw(name)  # what an earlier try left that was killed before it had signed
        store.begin(name, release.manifest_sha256, plan, now.timestamp(), _text(now))
        try:
            return start_rollout(fleet, first, now, db=db, devices=[facts_of(one) for one in roster])
        except BaseException:
            store.withdraw(name)
            raise
    finally:
        store.close()


def forecast(fleet: FleetWorkspace, plan: RolloutPlan, now: datetime, db: str | None) -> Forecast:
    """Return what a plan would do with the devices that have reported. Nothing is signed or stored. Raises FleetError
    if there is no such release."""
    store = RolloutStore(db or fleet.store_url)
    roster = _devices(store, plan.channel)
    store.close()
    repository = fleet.read(now)
    sizes = DownloadSizes(repository, plan.model, plan.version)
    name = plan.name or next_rollout_name(read_channel(repository, plan.channel), plan.version)
    waves: list[WaveForecast] = []
    known: set[str] = set()
    reached = 0.0
    strata: Strata | None = None
    for number, step in enumerate(plan.steps, start=1):
        if not isinstance(step, WaveStep | ShadowStep):
            continue
        reached = max(reached, percentage_for(step, roster, plan.selectors, name))
        strata = strata_for(step, roster, plan.selectors, name, strata)
        wave = members(roster, plan.selectors, name, reached, strata)
        new = [one for one in wave if one.device not in known]
        waves.append(
            WaveForecast(
                step=number,
                kind="wave" if isinstance(step, WaveStep) else "shadow",
                percent=reached,
                devices=len(wave),
                new=len(new),
                online=sum(one.online is True for one in new),
                boards=dict(sorted(Counter(one.board for one in new).items())),
                sites=dict(sorted(Counter(one.tags.get("site", "-") for one in new).items())),
                bytes=sum(sizes.of(one.serving) for one in new),
            )
        )
        known |= {one.device for one in wave}
    matching = members(roster, plan.selectors, name, 100.0)
    return Forecast(
        rollout=name,
        matching=len(matching),
        bundle_bytes=sizes.whole,
        seconds_at_least=_seconds(plan) + _turn_seconds(plan, matching),
        waves=tuple(waves),
    )


def replay(store: RolloutStore, planned: PlannedRollout) -> list[ReplayedDecision]:
    """Make every decision of a rollout again, each from the evidence it was made on."""
    book = EvidenceBook(gate_rules(planned.plan.gates), planned.plan.alpha, planned.plan.first_devices)
    evidence = store.evidence(planned.rollout)
    taken = 0
    found: list[ReplayedDecision] = []
    for made in store.decisions(planned.rollout):
        while taken < len(evidence) and evidence[taken][0] <= made.evidence:
            book.add(evidence[taken][1])
            taken += 1
        verdict = book.verdict()
        again = decide_step(planned.plan, made.state, verdict)
        log_e = {name: result.log_e for name, result in verdict.gates.items()}
        same = (again.action, again.why, log_e) == (made.action, made.why, made.log_e)
        found.append(ReplayedDecision(made=made, action=again.action, why=again.why, same=same))
    return found


def _turns(plan: RolloutPlan, before: Channel | None, devices: int, now: datetime) -> Availability | None:
    """Return the rule of turns, the first of which begins once the turns of the rollout before are over."""
    rule = plan.availability
    if rule is None:
        return None
    old = None if before is None else before.availability
    begins = now + timedelta(seconds=0.0 if old is None else old.turn_s)
    return Availability(
        group=rule.group,
        at_most=rule.at_most,
        turn_s=plan.turn_s,
        margin_s=rule.margin_s,
        begins=begins.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        shards=shards_for(devices),
    )


def _start(plan: RolloutPlan, name: str, roster: list[SlotChange], turns: Availability | None) -> Plan:
    first = plan.steps[0]
    assert isinstance(first, WaveStep | ShadowStep)
    return Plan(
        channel=plan.channel,
        model=plan.model,
        version=plan.version,
        name=name,
        percentage=percentage_for(first, roster, plan.selectors, name),
        selectors=plan.selectors,
        mode="shadow" if isinstance(first, ShadowStep) else "live",
        gates=plan.gates_of(first),
        window=plan.window_of(first),
        strata=strata_for(first, roster, plan.selectors, name, None),
        deadline=plan.deadline,
        retries=plan.retries,
        availability=turns,
    )


def _devices(store: RolloutStore, channel: str) -> list[SlotChange]:
    """Return the newest report of each device that has a slot on the channel."""
    found = {one.device: one for one in store.roster(channel, EVERYTHING) if one.state != GONE}
    return list(found.values())


def _seconds(plan: RolloutPlan) -> float:
    waves = sum(plan.gates_of(step).soak_s + plan.observe_s for step in plan.steps if isinstance(step, WaveStep))
    holds = sum(getattr(step, "seconds", 0.0) for step in plan.steps)
    return waves + holds


def _turn_seconds(plan: RolloutPlan, matching: list[SlotChange]) -> float:
    """Return how long the largest group needs for a turn of each of its devices."""
    rule = plan.availability
    if rule is None:
        return 0.0
    groups = Counter(facts_of(one).value(rule.group) for one in matching)
    del groups[None]
    return max((math.ceil(count / rule.at_most) for count in groups.values()), default=0) * plan.turn_s


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
