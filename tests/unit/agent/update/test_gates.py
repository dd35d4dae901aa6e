"""A soak's gates: what a release must have answered, and how many failures are too many."""

from __future__ import annotations

import pytest

from edge_agent.update.events import GateFailed, Soaked
from edge_agent.update.gates import judge
from edge_agent.update.record import CandidateRelease, UpdateRecord
from edge_contracts.channel import Gates

FAILED = GateFailed(reason="error-share")


def soaking(state: str = "active", **gates: float) -> UpdateRecord:
    candidate = CandidateRelease(
        model="har",
        version="1.0.0",
        manifest_sha256="a" * 64,
        channel="prod",
        serial=1,
        gates=Gates(**gates),  # type: ignore[arg-type]
    )
    return UpdateRecord(slot="main", state=state, candidate=candidate)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("requests", "failures", "served_s", "expected"),
    [
        (0, 0, 600.0, Soaked()),
        (1, 1, 600.0, FAILED),  # the only request failed
        (1, 1, 599.9, None),  # a lone first failure proves little
        (19, 19, 599.9, None),
        (20, 20, 1.0, FAILED),
        (20, 1, 600.0, Soaked()),  # 0.05 is allowed
        (20, 2, 1.0, FAILED),
        (100, 5, 1.0, None),
        (100, 6, 1.0, FAILED),
        (100, 0, 599.9, None),
    ],
)
def test_the_gates_of_a_soak_without_a_minimum(requests: int, failures: int, served_s: float, expected: object) -> None:
    assert judge(soaking(), requests, failures, served_s) == expected


@pytest.mark.parametrize(
    ("requests", "failures", "served_s", "expected"),
    [
        (49, 0, 600.0, None),  # long enough, too few
        (50, 0, 599.0, None),  # enough, not long enough
        (50, 0, 600.0, Soaked()),
        (49, 49, 600.0, None),
        (50, 50, 1.0, FAILED),
    ],
)
def test_a_soak_waits_for_the_requests_its_rollout_asks_for(
    requests: int, failures: int, served_s: float, expected: object
) -> None:
    assert judge(soaking(min_requests=50), requests, failures, served_s) == expected


def test_a_share_of_nothing_allows_no_failure_and_of_all_any() -> None:
    assert judge(soaking(max_error_share=0.0), 1000, 1, 1.0) == FAILED
    assert judge(soaking(max_error_share=1.0), 1000, 1000, 600.0) == Soaked()


@pytest.mark.parametrize("state", ["idle", "offered", "trial", "shadow", "committed", "rolled_back", "rejected"])
def test_nothing_is_said_of_a_release_that_does_not_soak(state: str) -> None:
    assert judge(soaking(state), 1000, 1000, 10_000.0) is None


def test_nothing_is_said_where_there_is_no_candidate() -> None:
    assert judge(UpdateRecord(slot="main", state="active"), 1000, 1000, 10_000.0) is None
