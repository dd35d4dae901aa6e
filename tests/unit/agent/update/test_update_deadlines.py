"""What the update table keeps in its records: deadlines, attempts, what was rejected, which variants are usable."""

from __future__ import annotations

import msgspec
import pytest

from edge_agent.update.events import (
    Began,
    Downloaded,
    Event,
    Fits,
    GateFailed,
    Held,
    Restarted,
    ShadowPassed,
    Soaked,
    TrialBegan,
    TrialPassed,
    UpdateFailed,
    Wished,
)
from edge_agent.update.record import MAX_ATTEMPTS, MAX_REJECTED, CandidateRelease, UpdateRecord, installed
from edge_agent.update.state_machine import TransitionError, advance
from edge_contracts.channel import Gates, MaintenanceWindow
from edge_contracts.state import Installed, UpdateState
from edge_contracts.turns import DeviceTurn

HOUR_S, DAY_S = 3600.0, 86400.0
NOW = 1_000_000.0
SERVING = Installed(version="1.0.0", manifest_sha256="a" * 64)


def candidate(letter: str = "c", *, serial: int = 1, soak_s: float = 600.0) -> CandidateRelease:
    return CandidateRelease(
        model="har",
        version="1.1.0",
        manifest_sha256=letter * 64,
        channel="prod",
        serial=serial,
        gates=Gates(soak_s=soak_s),
    )


def offered(letter: str = "c", **fields: float) -> UpdateRecord:
    record = UpdateRecord(slot="main", serving=SERVING, serial=1, usable={"a" * 64: ("int8",), "9" * 64: ("old",)})
    return advance(record, Wished(candidate=candidate(letter, **fields)), NOW)  # type: ignore[arg-type]


def follow(record: UpdateRecord, *events: object) -> UpdateRecord:
    for event in events:
        record = advance(record, event, NOW)  # type: ignore[arg-type]
    return record


WAY = (Began(), Fits(), Downloaded(saved=7), TrialBegan(), TrialPassed(usable=("int8", "fp32")), ShadowPassed())


@pytest.mark.parametrize(
    ("steps", "state", "lasts_s"),
    [
        (0, "offered", DAY_S),
        (1, "preflight", HOUR_S),
        (2, "downloading", 7 * DAY_S),
        (3, "verified", 8 * DAY_S),
        (4, "trial", HOUR_S),
        (5, "shadow", 30 * DAY_S),
        (6, "active", 600.0 + DAY_S),
    ],
)
def test_each_state_lasts_as_long_as_it_may(steps: int, state: str, lasts_s: float) -> None:
    record = follow(offered(), *WAY[:steps])
    assert (record.state, record.since, record.deadline) == (state, NOW, NOW + lasts_s)


@pytest.mark.parametrize("soak_s", [0.0, 600.0, 3 * DAY_S, 30 * DAY_S])
def test_a_soak_of_any_length_ends_a_day_after_it_could(soak_s: float) -> None:
    assert follow(offered(soak_s=soak_s), *WAY).deadline == NOW + soak_s + DAY_S


def test_what_is_settled_has_no_deadline() -> None:
    record = follow(offered(), *WAY, Soaked())
    assert (record.state, record.deadline, record.committed) == ("committed", None, True)


def test_a_passed_trial_keeps_the_variants_of_releases_that_are_here_and_of_no_other() -> None:
    record = follow(offered(), *WAY[:5])
    assert record.usable == {"a" * 64: ("int8",), "c" * 64: ("int8", "fp32")}
    assert record.saved == 7


def test_a_trial_that_nothing_passed_has_not_passed() -> None:
    with pytest.raises(TransitionError, match="at least one usable variant"):
        follow(offered(), *WAY[:4], TrialPassed(usable=()))


def test_a_wish_for_what_is_served_gives_up_what_was_on_its_way_with_its_attempts() -> None:
    tried = msgspec.structs.replace(follow(offered(), *WAY[:4]), attempts=3)
    assert (tried.trials, tried.attempts) == (1, 3)
    back = msgspec.structs.replace(candidate("a"), version="1.0.0")
    record = advance(tried, Wished(candidate=back), NOW + 5)
    assert (record.state, record.candidate, record.attempts, record.trials) == ("committed", None, 0, 0)
    assert (record.since, record.deadline) == (NOW + 5, None)


def test_a_new_candidate_begins_with_no_attempts_and_nothing_saved() -> None:
    tried = msgspec.structs.replace(follow(offered(), *WAY[:4]), attempts=3)
    record = advance(tried, Wished(candidate=candidate("d")), NOW)
    assert (record.state, record.attempts, record.trials, record.saved) == ("offered", 0, 0, 0)


def test_a_release_rejected_twice_is_remembered_once_and_as_the_latest() -> None:
    older = tuple(f"{number:064x}" for number in range(MAX_REJECTED))
    record = msgspec.structs.replace(offered(), rejected=(*older[:-1], "c" * 64))
    again = advance(msgspec.structs.replace(record, rejected=("c" * 64, *older[:3])), UpdateFailed(reason="trial"), NOW)
    assert again.rejected == (*older[:3], "c" * 64)
    full = advance(msgspec.structs.replace(record, rejected=older), UpdateFailed(reason="trial"), NOW)
    assert full.rejected == (*older[1:], "c" * 64)
    assert len(full.rejected) == 16


@pytest.mark.parametrize(
    ("steps", "reason", "again"), [(0, "window", False), (0, "paused", True), (1, "window", True), (3, "window", True)]
)
def test_a_hold_is_written_down_once_for_each_reason(steps: int, reason: str, again: bool) -> None:
    held = advance(offered(), Held(reason="window"), NOW)
    assert (held.state, held.reason, held.deadline) == ("offered", "window", None)
    record = follow(held if steps == 0 else offered(), *WAY[:steps])
    if steps:
        record = msgspec.structs.replace(record, reason="window")
    after = advance(record, Held(reason=reason), NOW + 60)
    assert (after is not record) is again
    assert (after.state, after.reason, after.deadline) == ("offered", reason, None)


def test_a_clock_that_went_back_or_jumped_past_the_deadline_begins_the_state_again() -> None:
    soaking = follow(offered(), *WAY)
    record = advance(soaking, Restarted(clean=True), NOW - 5000)
    assert (record.since, record.deadline) == (NOW - 5000, NOW - 5000 + 600.0 + DAY_S)
    overdue = msgspec.structs.replace(soaking, deadline=NOW - 10)
    assert advance(overdue, Restarted(clean=True), NOW - 5000).deadline == NOW - 5000 + 600.0 + DAY_S
    at_its_end = advance(soaking, Restarted(clean=True), NOW + 600.0 + DAY_S)
    assert (at_its_end.since, at_its_end.deadline) == (NOW, NOW + 2 * (600.0 + DAY_S))
    forever = msgspec.structs.replace(soaking, deadline=None)
    assert advance(forever, Restarted(clean=True), NOW - 5000).deadline is None
    later = advance(soaking, Restarted(clean=True), NOW + 100)
    assert (later.since, later.deadline) == (NOW, NOW + 600.0 + DAY_S)
    assert advance(soaking, Restarted(clean=True), NOW).since == NOW


def test_the_candidate_of_a_soak_is_what_is_served() -> None:
    record = follow(offered(), *WAY)
    assert record.serving == installed(candidate())
    assert record.last_good == SERVING
    assert (record.committed, record.crashes, record.starts) == (False, 0, 0)


@pytest.mark.parametrize(
    ("window", "open_share"), [(None, 1.0), (MaintenanceWindow(start="01:00", end="04:00"), 3 / 24)]
)
def test_whoever_waits_for_a_turn_waits_until_it_has_come_round_as_often_as_it_may_fail(
    window: MaintenanceWindow | None, open_share: float
) -> None:
    turn = DeviceTurn(begins=0.0, turn_s=1800.0, margin_s=60.0, index=3, of=12)
    waits = msgspec.structs.replace(candidate(), turn=turn, window=window)
    record = advance(offered(), Wished(candidate=waits), NOW)
    verified = follow(record, *WAY[:3])
    assert verified.deadline == pytest.approx(NOW + 8 * DAY_S + MAX_ATTEMPTS * 12 * 1800.0 / open_share)
    assert follow(record, *WAY[:2]).deadline == NOW + 7 * DAY_S  # a download needs no turn


def test_what_runs_beside_the_serving_release_or_serves_is_not_held() -> None:
    for record in (follow(offered(), *WAY[:5]), follow(offered(), *WAY), follow(offered(), *WAY, Soaked())):
        assert advance(record, Held(reason="paused"), NOW) is record


def test_a_release_that_has_soaked_has_no_attempts_left_over() -> None:
    tried = msgspec.structs.replace(follow(offered(), *WAY), attempts=2, trials=2)
    done = advance(tried, Soaked(), NOW)
    assert (done.attempts, done.trials) == (0, 0)


@pytest.mark.parametrize(("state", "event"), [("offered", Began()), ("active", GateFailed(reason="errors"))])
def test_nothing_is_done_to_a_candidate_that_is_not_there(state: UpdateState, event: Event) -> None:
    with pytest.raises(TransitionError, match="no candidate"):
        advance(UpdateRecord(slot="main", state=state, serving=SERVING), event, NOW)
