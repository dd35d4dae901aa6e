"""Plans of rollouts: what they may say, and how they go on."""

from __future__ import annotations

from typing import Any

import pytest

from edge_contracts.errors import ContractError
from edge_fleet.evidence.gates import GateResult, Verdict
from edge_fleet.rollouts.plan import RolloutPlan, WaveStep, parse_plan
from edge_fleet.rollouts.plan_state import StepProgress, StepState, decide_step, duration

HEAD = b'channel = "stable"\nmodel = "har"\nversion = "1.2.0"\n'
STEPS = b"""
[[steps]]
kind = "wave"
percent = 10
at_least = 2
[[steps]]
kind = "hold"
seconds = 3600
[[steps]]
kind = "approval"
who = "anna"
[[steps]]
kind = "wave"
percent = 100
"""


def plan(**changes: Any) -> RolloutPlan:
    from msgspec.structs import replace

    return replace(parse_plan(HEAD + STEPS, "plan.toml"), **changes)


def failures(count: int, failed: int, violated: bool = False) -> Verdict:
    mean = failed / count if count else None
    result = GateResult(count=count, mean=mean, allowed=0.05, log_e=9.0 if violated else 0.0, violated=violated)
    return Verdict(gates={"failures": result})


CALM = failures(0, 0)


def state(step: int = 0, elapsed_s: float = 10.0, **values: Any) -> StepState:
    return StepState(step=step, elapsed_s=elapsed_s, **values)


def test_a_wave_goes_on_when_its_online_devices_have_settled() -> None:
    through = StepProgress(passed=9, offline=3)
    assert decide_step(plan(), state(progress=through), failures(9, 0)).action == "next"


@pytest.mark.parametrize("held_up", [StepProgress(passed=9, busy=1), StepProgress(passed=9, waiting=1)])
def test_a_wave_waits_for_devices_that_are_there(held_up: StepProgress) -> None:
    decision = decide_step(plan(), state(progress=held_up), failures(9, 0))
    assert decision.action == "stay"
    assert "9 of 10 devices have settled" in decision.why


def test_devices_that_never_begin_hold_a_wave_up_until_its_deadline_only() -> None:
    waits = StepProgress(passed=9, waiting=1)
    assert decide_step(plan(), state(elapsed_s=86399.0, progress=waits), CALM).action == "stay"
    assert decide_step(plan(), state(elapsed_s=86400.0, progress=waits), CALM).action == "next"


def test_a_wave_of_devices_that_are_all_offline_is_not_through() -> None:
    decision = decide_step(plan(), state(progress=StepProgress(passed=1, offline=8)), failures(1, 0))
    assert decision.action == "stay"
    assert decision.why == "1 devices have come through, 2 must, 8 of the wave are offline"


def test_failures_above_the_limit_hold_and_say_how_many_reports_decide() -> None:
    wave = StepProgress(passed=10, failed=2)
    decision = decide_step(plan(), state(progress=wave), failures(12, 2))
    assert decision.action == "stay"
    assert "2 of 12 devices failed" in decision.why
    assert "28 more that succeed decide" in decision.why
    assert decide_step(plan(inconclusive="continue"), state(progress=wave), failures(12, 2)).action == "next"
    assert decide_step(plan(), state(progress=wave), failures(40, 2)).action == "next"


def test_enough_evidence_stops_in_any_step_and_while_paused() -> None:
    for step in range(4):
        decision = decide_step(plan(), state(step, paused=True), failures(12, 6, violated=True))
        assert decision.action == "stop"
        assert decision.why == "6 of 12 devices failed, allowed 0.05 of all"


def test_a_pause_stays() -> None:
    assert decide_step(plan(), state(paused=True, progress=StepProgress(passed=9)), CALM).action == "stay"


def test_a_hold_lasts_as_long_as_it_says() -> None:
    assert decide_step(plan(), state(1, 3599.0), CALM).action == "stay"
    assert decide_step(plan(), state(1, 3600.0), CALM).action == "next"


def test_an_approval_waits_for_whom_it_names() -> None:
    assert "approval of anna" in decide_step(plan(), state(2), CALM).why
    assert decide_step(plan(), state(2, approved="ben"), CALM).action == "stay"
    decision = decide_step(plan(), state(2, approved="anna"), CALM)
    assert (decision.action, decision.why) == ("next", "was approved by anna")


def test_after_the_last_step_the_release_is_the_stable_one() -> None:
    through = StepProgress(passed=30)
    assert decide_step(plan(), state(3, progress=through), failures(30, 0)).action == "finish"


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        (b'[[steps]]\nkind = "hold"\nseconds = 1\n', "steps.1"),
        (b'[[steps]]\nkind = "wave"\n', "steps.1"),
        (b'[[steps]]\nkind = "wave"\npercent = 1\ncount = 2\n', "steps.1"),
        (b'[[steps]]\nkind = "shadow"\npercent = 5\n', "steps"),
        (b'[[steps]]\nkind = "wave"\npercent = 9\n[[steps]]\nkind = "wave"\npercent = 5\n', "steps.2"),
        (b'[[steps]]\nkind = "wave"\npercent = 9\n[[steps]]\nkind = "shadow"\npercent = 5\n', "steps.2"),
        (b'[[steps]]\nkind = "rest"\n', "steps"),
        (b'[[steps]]\nkind = "wave"\npercent = 9\nspeed = 3\n', "speed"),
        (b"steps = []\n", "steps"),
        (b'[[steps]]\nkind = "wave"\npercent = 9\n[gates]\nfailure = 0.1\n', "gates.failure"),
    ],
)
def test_a_plan_that_cannot_be_followed_names_the_field(text: bytes, subject: str) -> None:
    with pytest.raises(ContractError, match=subject):
        parse_plan(HEAD + text, "plan.toml")


def test_lengths_of_time_are_told_in_one_unit() -> None:
    assert [duration(value) for value in (-1.0, 59.0, 90.0, 7200.0, 2 * 86400.0)] == [
        "0 s",
        "59 s",
        "1.5 min",
        "2 h",
        "2 d",
    ]


def test_the_first_wave_is_a_wave() -> None:
    assert plan().steps[0] == WaveStep(percent=10.0, at_least=2)
