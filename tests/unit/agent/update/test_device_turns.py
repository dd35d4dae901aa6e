"""Turns: at most so many devices of a site are at work, decided by each device alone, whatever happens."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edge_agent.update.events import (
    Began,
    Downloaded,
    Fits,
    ShadowPassed,
    Soaked,
    TrialBegan,
    TrialPassed,
    TurnOver,
    UpdateFailed,
    Wished,
)
from edge_agent.update.record import CandidateRelease, UpdateRecord, installed
from edge_agent.update.selection import Holdings, decide
from edge_agent.update.state_machine import advance
from edge_agent.update.turn_gate import has_overrun, may_serve, may_try
from edge_contracts.channel import Availability, Channel, ChannelRelease, Family, Gates, MaintenanceWindow
from edge_contracts.selection import Facts, in_wave, window_open
from edge_contracts.turns import (
    DeviceTurn,
    Roster,
    RosterGroup,
    is_over,
    may_begin,
    open_seconds,
    place_of,
    shard_of,
    turn_of,
)

BEGINS = "2026-12-01T00:00:00Z"
START = 1796083200.0
MARGIN_S, TURN_S, SOAK_S, TICK_S, AT_MOST = 120.0, 1800.0, 300.0, 60.0, 2
RULE = Availability(group="tag.site", at_most=AT_MOST, turn_s=TURN_S, margin_s=MARGIN_S, begins=BEGINS, shards=3)
STABLE = ChannelRelease(version="1.0.0", manifest_sha256="a" * 64)
NEW = ChannelRelease(version="1.1.0", manifest_sha256="b" * 64)
SITES = {"one": 1, "two": 2, "five": 5, "north": 9, "south": 13}


def channel(percentage: float, window: MaintenanceWindow | None = None) -> Channel:
    return Channel(
        schema=2, channel="stable", model="m", serial=2, stable=STABLE, candidate=NEW, rollout="r2", window=window,
        percentage=percentage, gates=Gates(soak_s=SOAK_S), availability=RULE,
    )  # fmt: skip


def roster_of(devices: list[Facts], known: Roster | None = None) -> Roster:
    """Fill a roster in as a fleet does, in one document."""
    groups = dict(known.groups) if known else {}
    for site in sorted({one.tags["site"] for one in devices}):
        places = [place_of("stable", one.device) for one in devices if one.tags["site"] == site]
        before = groups.get(site)
        if before is None:
            groups[site] = RosterGroup(turns=-(-len(places) // AT_MOST) + 1, places=tuple(places))
        else:
            new = [place for place in places if place not in before.places]
            room = before.turns * AT_MOST - len(before.places)
            groups[site] = replace(before, places=(*before.places, *new[:room]))
    return Roster(channel="stable", shard=0, groups=groups)


@dataclass
class Box:
    """A device made of the agent's own decisions. Its clock is off, it loses power, it is away for hours."""

    facts: Facts
    offset_s: float
    turns: bool = True
    document: Channel | None = None
    roster: Roster | None = None
    powered: bool = True
    since: float = 0.0
    record: UpdateRecord = field(default_factory=lambda: UpdateRecord(slot="main", serving=installed(_release(STABLE))))

    @property
    def at_work(self) -> bool:
        return self.powered and self.record.state in ("trial", "shadow", "active")

    def tick(self, now: float, online: bool, fails: bool) -> None:
        clock = now + self.offset_s
        if online and self.document is not None:
            self._wish(clock)
        record = self.record
        window = record.candidate.window if record.candidate else None
        hour = f"{int(clock // 3600) % 24:02d}:{int(clock // 60) % 60:02d}"
        if has_overrun(record, clock):
            self._apply(TurnOver(), clock)
        elif record.state == "verified" and window_open(window, hour) and may_try(record.candidate, clock):
            self._apply(TrialBegan(), clock)
        elif record.state == "trial":
            self._apply(UpdateFailed(reason="trial-crash") if fails else TrialPassed(usable=("v",)), clock)
        elif record.state == "shadow" and may_serve(record.candidate, clock):
            self._apply(ShadowPassed(), clock)
        elif record.state == "active" and clock - self.since >= SOAK_S:
            self._apply(Soaked(), clock)

    def _wish(self, clock: float) -> None:
        held = Holdings(running=self.record.running, ready=self.record.ready)
        decision = decide(self.document, Family(model="m", serial=1), self.facts, held, BEGINS)
        wish = decision.wish
        if wish is None or wish.manifest_sha256 in self.record.rejected:
            return
        turn = turn_of(RULE, self.roster, self.facts.tags["site"], self.facts.device) if self.turns else None
        if wish == NEW and turn is None and self.turns:
            return  # no place yet
        self._apply(Wished(candidate=_release(wish, turn, self.document.window)), clock)
        if self.record.state == "offered":
            for event in (Began(), Fits(), Downloaded()):
                self._apply(event, clock)

    def _apply(self, event: object, clock: float) -> None:
        before = self.record.state
        self.record = advance(self.record, event, clock)  # type: ignore[arg-type]
        if self.record.state != before:
            self.since = clock


def _release(
    one: ChannelRelease, turn: DeviceTurn | None = None, window: MaintenanceWindow | None = None
) -> CandidateRelease:
    return CandidateRelease(
        model="m", version=one.version, manifest_sha256=one.manifest_sha256, channel="stable", serial=2,
        rollout="r2" if one == NEW else None, gates=Gates(soak_s=SOAK_S), turn=turn, window=window,
    )  # fmt: skip


@dataclass
class Outcome:
    most: Counter[str]
    committed: int
    boxes: list[Box]
    moved_out: int


def simulate(seed: int, *, turns: bool = True, window: MaintenanceWindow | None = None, hours: int = 30) -> Outcome:
    """Roll out in three waves over sites of 1 to 13 devices, two of which come later; a tenth are away for good."""
    dice = random.Random(seed)
    boxes = [
        Box(Facts(device=f"{site}-{n}", board="b", architecture="a", tags={"site": site}), dice.uniform(-30, 30), turns)
        for site, size in SITES.items()
        for n in range(size)
    ]
    late = [box for box in boxes if box.facts.device in ("north-0", "south-5")]
    gone = {box.facts.device for box in boxes if dice.random() < 0.1 and box not in late}
    roster = roster_of([box.facts for box in boxes if box not in late])
    most: Counter[str] = Counter()
    away = dict.fromkeys((box.facts.device for box in boxes), 0.0)
    was_in: set[str] = set()
    moved_out = 0
    for tick in range(int(hours * 3600 / TICK_S)):
        now = START + tick * TICK_S
        document = channel(10.0 if tick < 60 else 50.0 if tick < 300 else 100.0, window)
        if tick == 200:
            roster = roster_of([box.facts for box in boxes], roster)
        members = {box.facts.device for box in boxes if in_wave(document, box.facts)}
        moved_out += len(was_in - members)
        was_in = members
        for box in boxes:
            name = box.facts.device
            if dice.random() < 0.002:
                away[name] = now + dice.expovariate(1 / 5000)
            online = now >= away[name] and name not in gone and not (box in late and tick < 150)
            if dice.random() < 0.002 and box.powered and not online:
                box.powered = False
            elif not box.powered and now >= away[name]:
                box.powered = True
            if online:
                box.document, box.roster = document, roster
            if box.powered:
                box.tick(now, online, fails=name.endswith("-3"))
        busy = Counter(box.facts.tags["site"] for box in boxes if box.at_work)
        most |= busy
    done = sum(box.record.serving == installed(_release(NEW)) and box.record.committed for box in boxes)
    wanted = [box for box in boxes if box.facts.device not in gone and not box.facts.device.endswith("-3")]
    return Outcome(most, done - len(wanted), boxes, moved_out)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_site_ever_has_more_at_work_and_everybody_there_gets_it(seed: int) -> None:
    outcome = simulate(seed)
    assert max(outcome.most.values()) == AT_MOST
    assert outcome.committed == 0
    assert outcome.moved_out == 0


def test_turns_pass_only_while_the_window_is_open() -> None:
    outcome = simulate(3, window=MaintenanceWindow(start="22:00", end="06:00"), hours=34)
    assert max(outcome.most.values()) <= AT_MOST
    assert sum(box.record.committed and box.record.serving == installed(_release(NEW)) for box in outcome.boxes) > 10


def test_without_turns_the_same_rollout_overruns_a_site() -> None:
    assert max(simulate(1, turns=False, hours=8).most.values()) > AT_MOST


def verified(turn: DeviceTurn) -> UpdateRecord:
    stable = installed(_release(STABLE))
    return UpdateRecord(slot="main", serving=stable, state="verified", candidate=_release(NEW, turn))


def test_a_device_cut_off_in_its_turn_goes_back_and_waits_for_the_next() -> None:
    turn = DeviceTurn(begins=0.0, turn_s=TURN_S, margin_s=MARGIN_S, index=0, of=3)
    record = UpdateRecord(
        slot="main", serving=installed(_release(STABLE)), state="verified", candidate=_release(NEW, turn)
    )
    for event in (TrialBegan(), TrialPassed(usable=("v",)), ShadowPassed()):
        record = advance(record, event, 200.0)
    assert record.serving == installed(_release(NEW))
    back = advance(record, TurnOver(), 2000.0)
    assert (back.state, back.serving, back.committed, back.rejected) == ("verified", record.last_good, True, ())
    assert NEW.manifest_sha256 in back.running


def test_a_release_that_never_gets_done_in_its_turn_is_given_up_in_the_end() -> None:
    turn = DeviceTurn(begins=0.0, turn_s=TURN_S, margin_s=MARGIN_S, index=0, of=1)
    record = UpdateRecord(
        slot="main", serving=installed(_release(STABLE)), state="verified", candidate=_release(NEW, turn)
    )
    for _ in range(20):
        if record.state == "rejected":
            break
        record = advance(advance(record, TrialBegan(), 0.0), TurnOver(), 0.0)
    assert (record.state, record.reason) == ("rejected", "turn-over")


def test_a_device_without_a_place_has_no_turn() -> None:
    facts = [Facts(device="a", board="b", architecture="x", tags={"site": "s"})]
    assert turn_of(RULE, roster_of(facts), "s", "a") is not None
    assert turn_of(RULE, roster_of(facts), "s", "stranger") is None
    assert turn_of(RULE, roster_of(facts), "elsewhere", "a") is None


@given(
    st.integers(0, 23), st.integers(0, 23), st.floats(0, 3e9), st.floats(0, 90_000),
)  # fmt: skip
def test_open_time_never_runs_backwards_nor_faster_than_time(start: int, end: int, moment: float, later: float) -> None:
    window = MaintenanceWindow(start=f"{start:02d}:00", end=f"{end:02d}:00")
    passed = open_seconds(window, moment + later) - open_seconds(window, moment)
    assert -1e-3 <= passed <= later + 1e-3
    whole = open_seconds(window, moment + 86400.0) - open_seconds(window, moment)
    assert whole == pytest.approx(((end - start) % 24 or 24) * 3600.0, abs=1e-2)


@given(st.integers(1, 9), st.integers(0, 8), st.floats(0, 1e6), st.floats(-60, 60))
def test_turns_of_clocks_that_differ_by_the_margin_never_overlap(of: int, index: int, now: float, off: float) -> None:
    one, other = (DeviceTurn(begins=0.0, turn_s=900.0, margin_s=60.0, index=n % of, of=of) for n in (index, index + 1))
    if one.index != other.index and may_begin(one, None, now, 0.0):
        assert is_over(other, None, now + off)


def test_groups_are_found_in_their_shard() -> None:
    assert {shard_of(f"site-{n}", 4) for n in range(100)} == {0, 1, 2, 3}
