"""The update table: every allowed path, every refused one, and what must hold whatever happens."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_agent.update.events import (
    Began,
    Crashed,
    Downloaded,
    Event,
    Expired,
    Fits,
    GateFailed,
    Held,
    Interrupted,
    Restarted,
    ShadowPassed,
    Shifted,
    Soaked,
    TrialBegan,
    TrialPassed,
    UpdateFailed,
    Wished,
    Withdrawn,
)
from edge_agent.update.gates import judge
from edge_agent.update.record import (
    MAX_ATTEMPTS,
    MAX_REBOOTS,
    MAX_REJECTED,
    MAX_TRIALS,
    MAX_UNCLEAN_STARTS,
    CandidateRelease,
    UpdateRecord,
    installed,
)
from edge_agent.update.state_machine import BEFORE_ACTIVE, TABLE, TransitionError, advance
from edge_contracts.channel import Gates


def candidate(letter: str, *, serial: int = 1, mode: str = "live", **gates: float) -> CandidateRelease:
    return CandidateRelease(
        model="har",
        version=f"1.0.{ord(letter)}",
        manifest_sha256=letter * 64,
        channel="prod",
        serial=serial,
        rollout="r",
        mode=mode,  # type: ignore[arg-type]
        gates=Gates(**gates),  # type: ignore[arg-type]
    )


def follow(record: UpdateRecord, *events: Event, now: float = 100.0) -> UpdateRecord:
    for event in events:
        record = advance(record, event, now)
    return record


NEW = UpdateRecord(slot="main")
FETCHED = (Began(), Fits(), Downloaded())
PASSED = (TrialBegan(), TrialPassed(usable=("int8",)), ShadowPassed())


def active(letter: str = "a", record: UpdateRecord = NEW, **gates: float) -> UpdateRecord:
    return follow(record, Wished(candidate=candidate(letter, **gates)), *FETCHED, *PASSED)


def committed(letter: str = "a", record: UpdateRecord = NEW) -> UpdateRecord:
    return follow(active(letter, record), Soaked())


def test_the_whole_way_to_committed() -> None:
    states = []
    record = NEW
    for event in (Wished(candidate=candidate("a")), *FETCHED, *PASSED, Soaked()):
        record = advance(record, event, 100.0)
        states.append(record.state)
    assert states == [
        "offered",
        "preflight",
        "downloading",
        "verified",
        "trial",
        "shadow",
        "active",
        "committed",
    ]
    assert record.serving == installed(candidate("a"))
    assert record.committed
    assert record.usable == {"a" * 64: ("int8",)}


@pytest.mark.parametrize("state", ["idle", *sorted(BEFORE_ACTIVE), "active", "committed", "rejected", "rolled_back"])
def test_every_transition_outside_the_table_is_refused(state: str) -> None:
    events: list[Event] = [*FETCHED, *PASSED, Soaked(), GateFailed(reason="x"), UpdateFailed(reason="x"), Expired()]
    events += [Interrupted(reason="x"), Crashed(reason="x")]
    record = UpdateRecord(slot="main", state=state, candidate=candidate("a"))  # type: ignore[arg-type]
    for event in events:
        if (state, type(event)) in TABLE:
            advance(record, event, 1.0)
        else:
            with pytest.raises(TransitionError, match="main"):
                advance(record, event, 1.0)


def test_every_state_before_committed_has_a_deadline() -> None:
    record = NEW
    for event in (Wished(candidate=candidate("a")), *FETCHED, *PASSED):
        record = advance(record, event, 100.0)
        assert record.deadline is not None
        assert record.deadline > 100.0
    assert follow(record, Soaked()).deadline is None


def test_commit_keeps_what_served_before_as_last_good() -> None:
    record = committed("b", committed("a"))
    assert record.serving == installed(candidate("b"))
    assert record.last_good == installed(candidate("a"))


def test_crash_in_soak_rolls_back_to_last_good_and_is_not_tried_again() -> None:
    record = follow(active("b", committed("a")), Crashed(reason="memory"))
    assert (record.state, record.reason) == ("rolled_back", "memory")
    assert record.serving == installed(candidate("a"))
    assert advance(record, Wished(candidate=candidate("b")), 200.0) == record


def test_new_serial_lets_a_rejected_release_try_again() -> None:
    record = follow(active("b", committed("a")), Crashed(reason="memory"))
    assert follow(record, Wished(candidate=candidate("b", serial=2))).state == "offered"


def test_new_serial_that_wants_a_retry_of_others_changes_nothing_here() -> None:
    record = follow(active("b", committed("a")), Crashed(reason="memory"))
    others = msgspec.structs.replace(candidate("b", serial=2), again=False)
    again = follow(record, Wished(candidate=others))
    assert (again.state, again.serial, again.rejected) == ("rolled_back", 2, record.rejected)
    assert follow(again, Wished(candidate=candidate("b", serial=3))).state == "offered"


def refused(reason: str) -> UpdateRecord:
    begun = follow(NEW, Wished(candidate=candidate("a")), Began(facts="one engine"))
    return follow(begun, UpdateFailed(reason=reason))


@pytest.mark.parametrize("reason", ["engine", "architecture", "memory-budget", "disk-budget", "trial-engine-missing"])
def test_refusal_by_the_device_itself_is_remembered_with_the_facts_and_judged_anew_when_offered_again(
    reason: str,
) -> None:
    record = refused(reason)
    assert (record.state, record.refused_under) == ("rejected", {"a" * 64: "one engine"})
    assert follow(record, Wished(candidate=candidate("a"))).state == "offered"


@pytest.mark.parametrize("reason", ["malformed", "aborted", "shadow-agreement"])
def test_refusal_for_what_the_release_is_stands_whatever_the_device_becomes(reason: str) -> None:
    record = refused(reason)
    assert record.refused_under == {}
    assert follow(record, Wished(candidate=candidate("a"))) == record


def test_facts_of_a_refusal_go_with_the_refusal() -> None:
    record = follow(refused("engine"), Wished(candidate=candidate("a", serial=2)))
    assert (record.state, record.refused_under, record.rejected) == ("offered", {}, ())
    record = follow(refused("engine"), Wished(candidate=candidate("a")), UpdateFailed(reason="malformed"))
    assert record.refused_under == {}


def test_what_was_given_up_is_tried_again_by_a_rule_and_counted_until_the_next_document() -> None:
    record = follow(active("b", committed("a")), Crashed(reason="hung"))
    assert (record.state, record.retried) == ("rolled_back", {})
    again = follow(record, Wished(candidate=candidate("b"), retry=True))
    assert (again.state, again.retried, again.rejected) == ("offered", {"b" * 64: 1}, ())
    assert follow(again, Wished(candidate=candidate("b"), retry=True)) == again
    failed = follow(again, UpdateFailed(reason="malformed"))
    assert (failed.state, failed.retried) == ("rejected", {"b" * 64: 1})
    assert follow(failed, Wished(candidate=candidate("b"))) == failed
    assert follow(failed, Wished(candidate=candidate("b"), retry=True)).retried == {"b" * 64: 2}
    assert follow(failed, Wished(candidate=candidate("b", serial=2))).retried == {}


def test_crashes_within_the_gate_go_on_soaking() -> None:
    record = follow(active("b", committed("a"), max_crashes=2), Crashed(reason="x"), Crashed(reason="x"))
    assert record.state == "active"
    assert follow(record, Crashed(reason="x")).state == "rolled_back"


def test_one_unclean_start_in_soak_is_no_crash_loop_and_three_are() -> None:
    record = active("b", committed("a"))
    for _ in range(MAX_UNCLEAN_STARTS):
        record = follow(record, Restarted(clean=False))
        assert (record.state, record.serving) == ("active", installed(candidate("b")))
    record = follow(record, Restarted(clean=False))
    assert (record.state, record.reason) == ("rolled_back", "crash-loop")
    assert record.serving == installed(candidate("a"))


def test_power_cuts_in_soak_do_not_count_as_unclean_starts_and_end_it_only_if_they_never_end() -> None:
    record = active("b", committed("a"))
    for _ in range(MAX_REBOOTS):
        record = follow(record, Restarted(clean=False, power_cut=True))
        assert (record.state, record.starts) == ("active", 0)
    record = follow(record, Restarted(clean=False, power_cut=True))
    assert (record.state, record.reason) == ("rolled_back", "reboot-loop")


def test_unclean_starts_and_crashes_of_workers_are_counted_apart() -> None:
    record = follow(active("b", committed("a"), max_crashes=1), Crashed(reason="x"), Restarted(clean=False))
    assert record.state == "active"
    assert follow(record, Crashed(reason="x")).reason == "x"


def test_activation_forgets_the_unclean_starts_and_restarts_of_the_release_before() -> None:
    record = follow(active("a"), Restarted(clean=False), Restarted(clean=False, power_cut=True), Soaked())
    record = active("b", record)
    assert (record.starts, record.reboots) == (0, 0)


def test_clock_that_is_set_takes_every_point_of_time_with_it() -> None:
    record = follow(NEW, Wished(candidate=candidate("a")), *FETCHED, now=1000.0)
    shifted = advance(record, Shifted(stepped_s=-600.0), 400.0)
    assert record.deadline is not None
    assert (shifted.since, shifted.deadline) == (400.0, record.deadline - 600.0)


def test_time_in_which_the_agent_did_not_run_prolongs_the_deadline_and_leaves_the_beginning() -> None:
    record = active("a")
    shifted = advance(record, Shifted(lost_s=3600.0), 3700.0)
    assert record.deadline is not None
    assert (shifted.since, shifted.deadline) == (record.since, record.deadline + 3600.0)


def test_clock_that_is_set_invents_no_time_for_a_record_that_has_none() -> None:
    assert advance(NEW, Shifted(stepped_s=5.0, lost_s=5.0), 1.0) == NEW


@pytest.mark.parametrize("events", [FETCHED, (*FETCHED, *PASSED[:2]), (*FETCHED, *PASSED)])
def test_deadline_that_passed_while_the_box_was_off_begins_anew(events: tuple[Event, ...]) -> None:
    record = follow(NEW, Wished(candidate=candidate("a", min_requests=5)), *events)
    assert record.deadline is not None
    late = record.deadline + 1000.0
    again = follow(record, Restarted(clean=False, power_cut=True), Expired(), now=late)
    assert again.state == record.state
    assert again.deadline == late + record.deadline - 100.0


def test_clean_restart_in_soak_goes_on() -> None:
    assert follow(active("b", committed("a")), Restarted(clean=True)).state == "active"


def test_crash_of_a_committed_release_never_rolls_back() -> None:
    record = follow(committed("a"), Wished(candidate=candidate("b")))
    assert follow(record, Crashed(reason="x"), Restarted(clean=False)).serving == installed(candidate("a"))


@pytest.mark.parametrize(
    ("events", "state"),
    [((), "offered"), (FETCHED[:1], "offered"), (FETCHED[:2], "offered"), (FETCHED, "verified")],
)
def test_restart_enters_each_state_again(events: tuple[Event, ...], state: str) -> None:
    record = follow(NEW, Wished(candidate=candidate("a")), *events, Restarted(clean=False))
    assert record.state == state


def test_trial_that_kills_the_box_is_given_up() -> None:
    record = follow(NEW, Wished(candidate=candidate("a")), *FETCHED)
    for _ in range(MAX_TRIALS - 1):
        record = follow(record, TrialBegan(), Restarted(clean=False))
        assert record.state == "verified"
    record = follow(record, TrialBegan(), Restarted(clean=False))
    assert (record.state, record.reason) == ("rejected", "trial-crash")


def test_newer_wish_supersedes_every_state_at_once() -> None:
    record = NEW
    for event in (Wished(candidate=candidate("a")), *FETCHED, *PASSED, Soaked()):
        record = advance(record, event, 100.0)
        newer = advance(record, Wished(candidate=candidate("b", serial=2)), 101.0)
        assert (newer.state, newer.candidate) == ("offered", candidate("b", serial=2))


def test_superseded_soak_never_becomes_last_good() -> None:
    record = active("c", follow(active("b", committed("a")), Wished(candidate=candidate("c"))))
    assert record.serving == installed(candidate("c"))
    assert record.last_good == installed(candidate("a"))


def test_uncommitted_release_still_rolls_back_under_a_newer_wish() -> None:
    record = follow(active("b", committed("a")), Wished(candidate=candidate("c")), Crashed(reason="x"))
    assert (record.state, record.serving) == ("offered", installed(candidate("a")))


def test_superseded_soak_is_left_when_the_newer_wish_fails() -> None:
    record = follow(
        active("b", committed("a")), Wished(candidate=candidate("c")), Began(), UpdateFailed(reason="memory")
    )
    assert (record.state, record.serving) == ("rejected", installed(candidate("a")))


def test_wish_back_for_a_superseded_soak_soaks_again() -> None:
    record = follow(active("b", committed("a")), Wished(candidate=candidate("c")), Wished(candidate=candidate("b")))
    assert (record.state, record.committed) == ("active", False)


def test_aborted_release_goes_even_when_committed() -> None:
    record = follow(committed("b", committed("a")), Withdrawn(manifest_sha256="b" * 64, reason="aborted"))
    assert (record.state, record.reason, record.serving) == ("rolled_back", "aborted", installed(candidate("a")))


def test_revoked_last_good_is_not_returned_to() -> None:
    record = follow(active("b", committed("a")), Withdrawn(manifest_sha256="a" * 64, reason="revoked"))
    assert follow(record, Crashed(reason="x")).serving is None


def test_shadow_candidate_is_tried_and_not_served_until_it_turns_live() -> None:
    record = follow(NEW, Wished(candidate=candidate("a", mode="shadow")), *FETCHED, *PASSED[:2])
    with pytest.raises(TransitionError, match="shadow"):
        advance(record, ShadowPassed(), 100.0)
    live = follow(record, Wished(candidate=candidate("a", serial=2)))
    assert live.state == "shadow"
    assert follow(live, ShadowPassed()).state == "active"


def test_pause_holds_a_start_and_leaves_a_soak_alone() -> None:
    held = follow(NEW, Wished(candidate=candidate("a")), Began(), Held(reason="paused"))
    assert (held.state, held.reason, held.deadline) == ("offered", "paused", None)
    soaking = active("a")
    assert advance(soaking, Held(reason="paused"), 1.0) is soaking


def test_missed_deadlines_are_tried_again_and_then_rejected() -> None:
    record, now = follow(NEW, Wished(candidate=candidate("a"))), 100.0
    for _ in range(MAX_ATTEMPTS - 1):
        record = follow(record, Began(), Fits(), now=now)
        assert record.deadline is not None
        now = record.deadline
        record = advance(record, Expired(), now)
        assert record.state == "offered"
    assert record.deadline is not None
    record = advance(record, Expired(), record.deadline)
    assert (record.state, record.reason) == ("rejected", "deadline")


def test_deadline_that_has_not_come_changes_nothing() -> None:
    record = follow(NEW, Wished(candidate=candidate("a")))
    assert advance(record, Expired(), 101.0) is record


def test_clock_set_back_keeps_what_was_left_of_the_deadline() -> None:
    record = follow(NEW, Wished(candidate=candidate("a")), *FETCHED, now=1e9)
    again = advance(record, Restarted(clean=True), 50.0)
    assert record.deadline is not None
    assert again.deadline == 50.0 + record.deadline - 1e9


def test_remembered_rejections_are_bounded() -> None:
    record = NEW
    for letter in (f"{index:x}" for index in range(16)):
        record = follow(record, Wished(candidate=candidate(letter)), UpdateFailed(reason="preflight"))
    record = follow(record, Wished(candidate=candidate("g")), UpdateFailed(reason="preflight"))
    assert len(record.rejected) == MAX_REJECTED
    assert record.rejected[-1] == "g" * 64


@pytest.mark.parametrize(
    ("requests", "failures", "served_s", "expected"),
    [
        (0, 0, 599.0, None),
        (0, 0, 600.0, Soaked()),
        (10, 10, 1.0, None),
        (20, 2, 1.0, GateFailed(reason="error-share")),
        (20, 1, 1.0, None),
        (10, 10, 600.0, GateFailed(reason="error-share")),
    ],
)
def test_gates_judge_a_soak(requests: int, failures: int, served_s: float, expected: Event | None) -> None:
    assert judge(active("a"), requests, failures, served_s) == expected


def test_soak_waits_for_its_requests_and_then_gives_up() -> None:
    record = active("a", min_requests=5)
    assert judge(record, 4, 0, 1e6) is None
    assert record.deadline is not None
    expired = advance(record, Expired(), record.deadline)
    assert (expired.state, expired.reason) == ("rolled_back", "too-few-requests")


class UpdateLife(RuleBasedStateMachine):
    """Any events in any order, with restarts from the persisted bytes anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.record = NEW
        self.now = 1000.0
        self.proved: set[str] = set()

    @rule(letter=st.sampled_from("abc"), serial=st.integers(1, 3), mode=st.sampled_from(["live", "shadow"]))
    def wish(self, letter: str, serial: int, mode: str) -> None:
        self._step(Wished(candidate=candidate(letter, serial=serial, mode=mode)))

    @rule(letter=st.sampled_from("abc"))
    def withdraw(self, letter: str) -> None:
        self._step(Withdrawn(manifest_sha256=letter * 64, reason="aborted"))

    @rule(stepped=st.floats(-1e5, 1e5), lost=st.floats(0, 1e6))
    def shift(self, stepped: float, lost: float) -> None:
        state = self.record.state
        self.now = max(1.0, self.now + stepped + lost)
        self._step(Shifted(stepped_s=stepped, lost_s=lost))
        assert self.record.state == state

    @rule(clean=st.booleans(), power_cut=st.booleans(), later=st.floats(-5000, 5000))
    def restart(self, clean: bool, power_cut: bool, later: float) -> None:
        self.now = max(1.0, self.now + later)
        self.record = msgspec.json.decode(msgspec.json.encode(self.record), type=UpdateRecord)
        self._step(Restarted(clean=clean, power_cut=power_cut and not clean))

    @precondition(lambda self: any((self.record.state, kind) in TABLE for kind in map(type, self._all())))
    @rule(data=st.data())
    def happen(self, data: st.DataObject) -> None:
        possible = [event for event in self._all() if (self.record.state, type(event)) in TABLE]
        self._step(data.draw(st.sampled_from(possible)))

    @rule(seconds=st.floats(0, 1e6))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def _all(self) -> list[Event]:
        events: list[Event] = [*FETCHED, *PASSED, Soaked(), Expired(), Held(reason="paused")]
        return [*events, GateFailed(reason="x"), UpdateFailed(reason="x"), Interrupted(reason="x"), Crashed(reason="x")]

    def _step(self, event: Event) -> None:
        before = self.record
        try:
            self.record = advance(before, event, self.now)
        except TransitionError:
            shadow = before.candidate is not None and before.candidate.mode == "shadow"
            assert isinstance(event, ShadowPassed)
            assert shadow
            return
        if isinstance(event, Soaked):
            assert self.record.serving is not None
            self.proved.add(self.record.serving.manifest_sha256)

    @invariant()
    def only_proved_releases_are_returned_to(self) -> None:
        good = self.record.last_good
        assert good is None or good.manifest_sha256 in self.proved

    @invariant()
    def what_serves_uncommitted_is_soaking_or_superseded(self) -> None:
        if self.record.state in ("idle", "committed", "rolled_back", "rejected"):
            assert self.record.committed

    @invariant()
    def a_committed_release_was_proved(self) -> None:
        record = self.record
        assert record.serving is None or not record.committed or record.serving.manifest_sha256 in self.proved

    @invariant()
    def what_is_needed_is_kept(self) -> None:
        record = self.record
        for release in (record.serving, record.last_good):
            assert release is None or release.manifest_sha256 in record.manifests


UpdateLife.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestUpdateLife = UpdateLife.TestCase
