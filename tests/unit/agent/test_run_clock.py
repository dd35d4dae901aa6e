"""Patience is measured only while the one who has it runs."""

from __future__ import annotations

from edge_agent.run_clock import LATE_S, RunClock


def test_time_in_which_the_owner_did_not_run_does_not_count() -> None:
    clock = RunClock(100.0)
    assert clock.tick(100.5) == 0.0
    assert clock.tick(160.5) == 60.0 - LATE_S
    assert clock.now == 0.5 + LATE_S


def test_ticks_that_come_in_time_count_in_full() -> None:
    clock = RunClock(0.0)
    for second in range(1, 61):
        assert clock.tick(float(second)) == 0.0
        assert clock.judging
    assert clock.now == 60.0


def test_nobody_is_judged_at_the_tick_after_a_pause_and_everybody_at_the_next() -> None:
    clock = RunClock(0.0)
    clock.tick(60.0)
    assert not clock.judging
    clock.tick(60.5)
    assert clock.judging


def test_owner_that_is_always_late_still_judges() -> None:
    clock = RunClock(0.0)
    clock.tick(10.0)
    clock.tick(20.0)
    assert clock.judging
    assert clock.now == 2 * LATE_S


def test_pauses_in_a_row_count_little_each() -> None:
    clock = RunClock(0.0)
    assert sum(clock.tick(30.0 * number) for number in range(1, 4)) == 90.0 - 3 * LATE_S


def test_clock_that_goes_back_takes_nothing_away() -> None:
    clock = RunClock(50.0)
    assert clock.tick(40.0) == 0.0
    assert clock.now == 0.0
    clock.tick(41.0)
    assert clock.now == 1.0
