"""The limits of an update's states, what a fresh record says, and which releases a slot holds on to."""

from __future__ import annotations

import pytest

from edge_agent.update import record
from edge_agent.update.record import CandidateRelease, UpdateRecord
from edge_contracts.state import Installed, UpdateState

A, B, C = "a" * 64, "b" * 64, "c" * 64
CANDIDATE = CandidateRelease(model="har", version="1.1.0", manifest_sha256=C, channel="prod", serial=1)


def in_state(state: UpdateState, *, serving: str | None = A, last_good: str | None = B) -> UpdateRecord:
    return UpdateRecord(
        slot="main",
        state=state,
        candidate=CANDIDATE,
        serving=None if serving is None else Installed(version="1.0.0", manifest_sha256=serving),
        last_good=None if last_good is None else Installed(version="0.9.0", manifest_sha256=last_good),
    )


def test_each_state_may_last_as_long_as_its_work_can_take() -> None:
    hour, day = 3600.0, 86400.0
    assert {
        "offered": day,
        "preflight": hour,
        "downloading": 7 * day,
        "verified": 8 * day,
        "trial": hour,
        "shadow": 30 * day,
    } == record.DEADLINES_S
    assert day == record.SOAK_GRACE_S


def test_how_often_a_release_may_be_tried() -> None:
    assert (record.MAX_ATTEMPTS, record.MAX_TRIALS, record.MAX_UNCLEAN_STARTS) == (10, 3, 2)
    assert (record.MAX_REBOOTS, record.MAX_REJECTED) == (8, 16)


def test_a_fresh_record_has_counted_nothing() -> None:
    fresh = UpdateRecord(slot="main")
    assert (fresh.serial, fresh.crashes, fresh.starts, fresh.reboots) == (0, 0, 0, 0)
    assert (fresh.attempts, fresh.trials, fresh.saved, fresh.since) == (0, 0, 0, 0.0)
    assert (fresh.committed, fresh.deadline, fresh.rejected) == (True, None, ())
    assert (fresh.manifests, fresh.running, fresh.ready) == (frozenset(), frozenset(), frozenset())


@pytest.mark.parametrize(
    ("state", "ready", "running"),
    [
        ("offered", {A}, {A, C}),
        ("preflight", {A}, {A, C}),
        ("downloading", {A}, {A, C}),
        ("verified", {A, C}, {A, C}),
        ("trial", {A, C}, {A, C}),
        ("shadow", {A, C}, {A, C}),
        ("active", {A, C}, {A, C}),
        ("committed", {A, C}, {A, C}),
        ("rejected", {A}, {A}),
        ("rolled_back", {A}, {A}),
    ],
)
def test_what_is_whole_and_in_use_by_state(state: UpdateState, ready: set[str], running: set[str]) -> None:
    found = in_state(state)
    assert (found.ready, found.running, found.manifests) == (ready, running, running | {B})


def test_a_slot_that_serves_nothing_holds_its_candidate_only() -> None:
    found = in_state("trial", serving=None, last_good=None)
    assert (found.ready, found.running, found.manifests) == ({C}, {C}, {C})
