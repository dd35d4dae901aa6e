"""What an update's record keeps on the device: which releases' folders must stay, and which of them are whole."""

from __future__ import annotations

from typing import get_args

import pytest

from edge_agent.update.record import CandidateRelease, UpdateRecord, installed
from edge_contracts.state import Installed, UpdateState

SERVING = Installed(version="1.0.0", manifest_sha256="a" * 64)
LAST_GOOD = Installed(version="0.9.0", manifest_sha256="b" * 64)
CANDIDATE = CandidateRelease(model="har", version="1.1.0", manifest_sha256="c" * 64, channel="prod", serial=3)
WHOLE = ("verified", "trial", "shadow", "active", "committed")
GIVEN_UP = ("rejected", "rolled_back")


def record(state: UpdateState) -> UpdateRecord:
    return UpdateRecord(slot="main", state=state, serving=SERVING, last_good=LAST_GOOD, candidate=CANDIDATE)


@pytest.mark.parametrize("state", get_args(UpdateState))
def test_a_candidate_is_ready_once_every_byte_is_here_and_kept_until_it_is_given_up(state: UpdateState) -> None:
    kept = {"a" * 64} if state in GIVEN_UP else {"a" * 64, "c" * 64}
    assert record(state).running == kept
    assert record(state).manifests == kept | {"b" * 64}
    assert record(state).ready == ({"a" * 64, "c" * 64} if state in WHOLE else {"a" * 64})


def test_a_slot_with_nothing_keeps_nothing() -> None:
    empty = UpdateRecord(slot="main", state="committed")
    assert empty.running == empty.manifests == empty.ready == frozenset()


def test_a_candidate_becomes_the_release_it_is() -> None:
    assert installed(CANDIDATE) == Installed(version="1.1.0", manifest_sha256="c" * 64)
