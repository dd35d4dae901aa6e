"""Delays and windows, held against the figures of their sources: RFC 6298, full jitter, one more or half."""

from __future__ import annotations

import pytest

from edge_agent.backoff import InFlight, RoundTrip, doubling, full_jitter


@pytest.mark.parametrize(
    ("attempt", "step"), [(0, 2.0), (1, 4.0), (2, 8.0), (4, 32.0), (5, 60.0), (6, 60.0), (32, 60.0), (100_000, 60.0)]
)
def test_steps_double_from_the_base_up_to_the_cap(attempt: int, step: float) -> None:
    assert doubling(attempt, base_s=2.0, cap_s=60.0) == step
    assert full_jitter(attempt, 0.25, base_s=2.0, cap_s=60.0) == step / 4
    assert full_jitter(attempt, 0.0, base_s=2.0, cap_s=60.0) == 0.0


def test_no_number_of_attempts_overflows() -> None:
    assert doubling(10**9, base_s=1.0, cap_s=1e300) == 2.0**32
    assert full_jitter(10**9, 0.5, base_s=1.0, cap_s=1e300) == 2.0**31


def test_the_first_answer_sets_the_timer_as_rfc_6298_says() -> None:
    first = RoundTrip().observed(2.0)
    assert (first.smoothed_s, first.variation_s, first.timeout_s) == (2.0, 1.0, 6.0)


def test_later_answers_move_the_timer_by_an_eighth_and_a_quarter() -> None:
    second = RoundTrip().observed(2.0).observed(4.0)
    assert second.variation_s == 0.75 * 1.0 + 0.25 * 2.0
    assert second.smoothed_s == 0.875 * 2.0 + 0.125 * 4.0
    assert second.timeout_s == second.smoothed_s + 4 * second.variation_s
    lower = second.observed(0.25)
    assert lower.variation_s == 0.75 * 1.25 + 0.25 * 2.0  # the difference counts, not its sign
    assert lower.smoothed_s == 0.875 * 2.25 + 0.125 * 0.25


def test_no_answer_in_time_doubles_the_wait_and_leaves_the_estimate() -> None:
    missed = RoundTrip().observed(2.0).missed()
    assert (missed.smoothed_s, missed.variation_s, missed.timeout_s) == (2.0, 1.0, 12.0)
    assert RoundTrip().missed().timeout_s == 20.0
    assert RoundTrip().missed().smoothed_s is None


def test_the_wait_stays_between_its_floor_and_its_cap() -> None:
    assert RoundTrip().observed(0.001).timeout_s == 1.0
    assert RoundTrip(floor_s=0.5, cap_s=3.0).observed(0.001).timeout_s == 0.5
    capped = RoundTrip(floor_s=0.5, cap_s=3.0).observed(2.0)
    assert (capped.timeout_s, capped.floor_s, capped.cap_s) == (3.0, 0.5, 3.0)
    assert capped.missed().timeout_s == 3.0
    assert RoundTrip().missed().missed().timeout_s == 30.0


@pytest.mark.parametrize(
    ("limit", "sample_s", "after"),
    [(2, 0.999, 3), (2, 1.0, 2), (2, 4.0, 2), (2, 4.001, 1), (1, 9.0, 1), (8, 0.1, 8), (7, 0.1, 8), (8, 5.0, 7)],
)
def test_a_quick_answer_makes_room_for_one_more_and_a_slow_one_takes_it(
    limit: int, sample_s: float, after: int
) -> None:
    window = InFlight(limit=limit, most=8).observed(sample_s)
    assert (window.limit, window.most) == (after, 8)


@pytest.mark.parametrize(("limit", "after"), [(9, 4), (8, 4), (2, 1), (1, 1)])
def test_an_answer_that_did_not_come_halves_the_window(limit: int, after: int) -> None:
    window = InFlight(limit=limit, most=16).missed()
    assert (window.limit, window.most) == (after, 16)


def test_two_requests_are_in_flight_at_first_and_never_more_than_64() -> None:
    assert (InFlight().limit, InFlight().most) == (2, 64)
    assert (RoundTrip().timeout_s, RoundTrip().floor_s, RoundTrip().cap_s) == (10.0, 1.0, 30.0)
    assert (RoundTrip().smoothed_s, RoundTrip().variation_s) == (None, 0.0)
