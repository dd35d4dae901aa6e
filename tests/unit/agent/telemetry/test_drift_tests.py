"""Drift: distances against hand-made numbers, and bounds against many windows drawn from one distribution."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.telemetry.drift_tests import (
    PageHinkley,
    chi_squared_quantile,
    jsd,
    judge,
    judge_one,
    ks,
    ks_bound,
    mean_bin,
    psi,
)

COUNTS = st.lists(st.integers(0, 5000), min_size=2, max_size=20).filter(any)


@given(COUNTS)
def test_a_histogram_is_at_no_distance_from_itself(counts):
    assert psi(counts, counts) == 0.0
    assert jsd(counts, counts) == pytest.approx(0.0, abs=1e-12)
    assert ks(counts, counts) == 0.0


@given(st.integers(2, 20).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 999), min_size=n, max_size=n)] * 2)))
def test_distances_stay_within_what_they_can_be(pair):
    a, b = pair
    assert psi(a, b) >= 0.0
    assert -1e-12 <= jsd(a, b) <= math.log(2)
    assert 0.0 <= ks(a, b) <= 1.0


def test_distances_of_a_worked_example():
    # Shares 1/2, 1/2 against 1/4, 3/4, large enough that the half added to each bin does not show.
    a, b = [500_000, 500_000], [250_000, 750_000]
    assert psi(a, b) == pytest.approx(0.25 * math.log(3), rel=1e-4)
    assert ks(a, b) == pytest.approx(0.25)
    middle = (0.375, 0.625)
    wanted = sum(p * math.log(p / m) for p, m in zip((0.5, 0.5), middle, strict=True)) / 2
    wanted += sum(q * math.log(q / m) for q, m in zip((0.25, 0.75), middle, strict=True)) / 2
    assert jsd(a, b) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(("p", "degrees", "value"), [(0.95, 1, 3.841), (0.99, 9, 21.666), (0.995, 19, 38.582)])
def test_quantiles_are_those_of_the_tables(p, degrees, value):
    assert chi_squared_quantile(p, degrees) == pytest.approx(value, rel=0.03)


@pytest.mark.parametrize("samples", [50, 200, 1000, 5000])
@pytest.mark.parametrize("shares", [[1] * 10, [2.0**-k for k in range(10)]], ids=["even", "skewed"])
def test_without_drift_at_most_two_windows_in_a_hundred_raise_an_alarm(samples, shares):
    rng = np.random.default_rng(samples)
    p = np.array(shares, float) / sum(shares)
    names = ("mean", "spread", "confidence", "class")
    alarms = 0
    for _ in range(400):
        references = {name: rng.multinomial(1000, p).tolist() for name in names}
        window = {name: rng.multinomial(samples, p).tolist() for name in names}
        alarms += any(drift.alarm for drift in judge(references, window))
    assert alarms <= 0.02 * 400


@pytest.mark.parametrize("samples", [30, 120])
@pytest.mark.parametrize("shares", [[1] * 10, [2.0**-k for k in range(10)]], ids=["even", "skewed"])
def test_the_alarms_of_all_tags_stay_within_the_same_rate(samples, shares):
    rng = np.random.default_rng(samples)
    p = np.array(shares, float) / sum(shares)
    names, tags = ("mean", "spread", "confidence", "class"), ("a", "b", "c", "d", "e", "f", "g", "h", "other")
    alarms = 0
    for _ in range(500):
        references = {name: rng.multinomial(1000, p).tolist() for name in names}
        by_tag = {f"{name}@{tag}": rng.multinomial(samples, p) for name in names for tag in tags}
        window = {name: rng.multinomial(600, p).tolist() for name in names}
        judged = judge(references, window | {name: bins.tolist() for name, bins in by_tag.items()})
        assert len(judged) == len(names) * (len(tags) + 1)
        alarms += any(drift.alarm for drift in judged)
    assert alarms <= 0.02 * 500


def test_the_usual_fixed_bound_would_cry_wolf():
    rng = np.random.default_rng(1)
    p = np.full(10, 0.1)
    over = sum(psi(rng.multinomial(1000, p).tolist(), rng.multinomial(50, p).tolist()) > 0.1 for _ in range(200))
    assert over > 0.6 * 200


def test_a_shift_by_half_a_deviation_is_seen_in_one_window_of_500():
    rng = np.random.default_rng(2)
    edges = np.quantile(rng.normal(size=10_000), np.linspace(0, 1, 11)[1:-1])

    def count(x):
        return np.bincount(np.searchsorted(edges, x), minlength=10).tolist()

    reference = count(rng.normal(size=1000))
    seen = sum(judge_one("x", reference, count(rng.normal(0.5, 1, 500)), alpha=0.0025).alarm for _ in range(100))
    assert seen == 100


def test_a_dead_sensor_is_seen_in_the_smallest_window():
    drift = judge_one("x", [100] * 10, [0] * 9 + [30], alpha=0.0025)
    assert drift.alarm
    assert drift.samples == 30


def test_what_cannot_be_compared_is_not_judged():
    references = {"a": [10, 10], "b": [10, 10, 10], "c": [10, 10], "one": [10]}
    window = {"a": [20, 20], "b": [20, 20], "c": [1, 1], "d": [9, 99], "one": [50]}
    assert [drift.name for drift in judge(references, window)] == ["a"]


def _learned(rng):
    sums = PageHinkley()
    for value in rng.normal(size=50):
        sums = sums.add(float(value), 1.0)
    return sums


def test_a_slow_decline_that_no_window_shows_adds_up():
    rng = np.random.default_rng(3)
    sums, windows = _learned(rng), 0
    while not sums.alarm:
        sums, windows = sums.add(float(rng.normal(-1.5)), 1.0), windows + 1
    assert 2 <= windows <= 40
    assert sums.down > sums.up


def test_a_steady_mean_rarely_alarms():
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(20):
        sums = PageHinkley()
        for value in rng.normal(7.0, 2.0, size=500):
            sums = sums.add(float(value), 2.0)
            if sums.alarm:
                alarms, sums = alarms + 1, PageHinkley()
    assert alarms <= 5


def test_the_first_windows_only_make_the_mean():
    sums = PageHinkley()
    for value in [0.0, 100.0] * 5:
        sums = sums.add(value, 1.0)
    assert (sums.windows, sums.mean, sums.up, sums.down) == (10, pytest.approx(50.0), 0.0, 0.0)


def test_a_window_without_a_mean_changes_nothing():
    before = PageHinkley(windows=20, up=1.0)
    assert before.add(math.nan, 1.0) == before
    assert before.add(1.0, 0.0) == before


def test_the_mean_bin_and_its_error_are_those_of_the_samples():
    mean, error = mean_bin([2, 0, 2])
    assert mean == 1.0
    assert error == pytest.approx(np.std([0, 0, 2, 2], ddof=1) / 2)
    assert mean_bin([0, 1])[1] == 0.0


def test_the_bound_narrows_with_the_window():
    assert ks_bound(1000, 5000, 0.01) < ks_bound(1000, 500, 0.01) < ks_bound(1000, 50, 0.01)
