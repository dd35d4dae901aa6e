"""Evidence about a mean that may be looked at at any time."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ville import BettingCS

from edge_fleet.evidence.e_process import BETS, Bounds, EProcess, log_e_value, lower_bound, upper_bound
from edge_fleet.evidence.joint import discoveries

VALUES = st.lists(st.floats(0.0, 1.0), max_size=40)


def outcomes(rate: float, count: int, seed: int) -> list[float]:
    chance = random.Random(f"{rate}/{seed}")
    return [float(chance.random() < rate) for _ in range(count)]


def test_nothing_seen_is_no_evidence() -> None:
    process = EProcess(0.05)
    assert (process.log_e, process.mean, process.count) == (0.0, None, 0)


def test_the_evidence_of_one_failure_is_the_mean_of_its_likelihood_ratios() -> None:
    ratios = [(0.05 + bet * 0.95) / 0.05 for bet in BETS]
    assert log_e_value([1.0], 0.05) == pytest.approx(math.log(sum(ratios) / len(ratios)))


def test_the_evidence_of_one_success_is_the_mean_of_its_likelihood_ratios() -> None:
    ratios = [1.0 - bet for bet in BETS]
    assert log_e_value([0.0], 0.05) == pytest.approx(math.log(sum(ratios) / len(ratios)))


@given(VALUES, st.randoms())
def test_the_order_of_observations_does_not_matter(values: list[float], chance: random.Random) -> None:
    other = list(values)
    chance.shuffle(other)
    assert log_e_value(other, 0.1) == pytest.approx(log_e_value(values, 0.1), abs=1e-9)


@given(st.floats(0.0, 0.99))
def test_evidence_is_not_expected_to_grow_where_the_mean_is_what_is_allowed(allowed: float) -> None:
    expected = allowed * math.exp(log_e_value([1.0], allowed)) + (1 - allowed) * math.exp(log_e_value([0.0], allowed))
    assert expected <= 1.0 + 1e-9


def test_observations_beyond_the_bounds_count_as_the_bounds() -> None:
    bounds = Bounds(low=-1.0, high=1.0)
    assert log_e_value([40.0, -40.0], 0.1, bounds) == log_e_value([1.0, -1.0], 0.1, bounds)


def test_a_limit_outside_its_bounds_is_refused() -> None:
    for allowed in (-0.1, 1.0, 1.5):
        with pytest.raises(ValueError, match="not in"):
            EProcess(allowed)


def test_where_nothing_is_allowed_one_failure_is_strong_and_no_success_is_held_against_it() -> None:
    assert log_e_value([0.0] * 100, 0.0) == 0.0
    assert math.exp(log_e_value([1.0], 0.0)) > 100


@pytest.mark.parametrize(("rate", "count"), [(0.02, 120), (0.1, 120), (0.3, 30)])
def test_the_bounds_agree_with_an_independent_implementation(rate: float, count: int) -> None:
    for seed in range(4):
        values = outcomes(rate, count, seed)
        peer = BettingCS(bounds=(0.0, 1.0), alpha=0.02, grid=1000)
        for value in values:
            peer.update(value)
        low, high = peer.interval()
        assert lower_bound(values, 0.01) == pytest.approx(low, abs=0.05)
        assert upper_bound(values, 0.01) == pytest.approx(high, abs=0.15)


def test_a_mean_below_the_lower_bound_is_ruled_out_and_one_above_is_not() -> None:
    values = outcomes(0.3, 60, 1)
    low = lower_bound(values, 0.05)
    assert log_e_value(values, low - 1e-3) >= math.log(20)
    assert log_e_value(values, low + 1e-3) < math.log(20)


def test_without_observations_the_bounds_say_nothing() -> None:
    assert (lower_bound([], 0.01), upper_bound([], 0.01)) == (0.0, 1.0)


def test_of_several_gates_one_needs_as_many_times_the_evidence() -> None:
    just = math.log(10 / 0.01)
    quiet = {f"g{number}": 0.0 for number in range(9)}
    assert discoveries(quiet | {"bad": just - 1e-9}, 0.01) == frozenset()
    assert discoveries(quiet | {"bad": just}, 0.01) == {"bad"}


def test_gates_that_are_violated_together_need_less_evidence_each() -> None:
    half = math.log(2 / (2 * 0.01))
    assert discoveries({"a": half, "b": half}, 0.01) == {"a", "b"}
    assert discoveries({"a": half, "b": 0.0}, 0.01) == frozenset()


def test_no_gates_are_never_violated() -> None:
    assert discoveries({}, 0.01) == frozenset()
