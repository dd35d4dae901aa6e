"""The statistics of drift, worked out by hand: which test speaks, its degrees of freedom, its edges."""

from __future__ import annotations

import math

import pytest

from edge_agent.telemetry.drift_tests import PageHinkley, jsd, judge_one, ks, ks_bound, mean_bin, psi, psi_bound


def test_bins_that_are_empty_on_one_side_count_as_degrees_of_freedom_and_those_empty_on_both_do_not() -> None:
    reference, window = (50, 50, 0, 0, 0), (40, 0, 60, 0, 0)
    found = judge_one("x", reference, window, alpha=0.01)
    assert found.by == "psi"
    assert found.bound == psi_bound(100, 100, 3, 0.005)
    few = judge_one("x", (100, 0), (100, 0), alpha=0.01)
    assert few.bound in (psi_bound(100, 100, 2, 0.005), ks_bound(100, 100, 0.005))


@pytest.mark.parametrize(
    ("reference", "window"),
    [((25,) * 4, (35, 15, 35, 15)), ((10,) * 10, (14, 14, 14, 14, 14, 6, 6, 6, 6, 6)), ((400, 600), (300, 700))],
)
def test_the_test_that_exceeds_its_bound_most_speaks(reference: tuple[int, ...], window: tuple[int, ...]) -> None:
    n, m = sum(reference), sum(window)
    bounds = {"psi": psi_bound(n, m, len(window), 0.005), "ks": ks_bound(n, m, 0.005)}
    values = {"psi": psi(reference, window), "ks": ks(reference, window)}
    first = max(bounds, key=lambda name: values[name] / bounds[name])
    found = judge_one("x", reference, window, alpha=0.01)
    assert (found.by, found.value, found.bound) == (first, values[first], bounds[first])
    assert (found.psi, found.ks, found.samples) == (values["psi"], values["ks"], m)


def test_a_shift_is_told_by_ks_and_a_swap_of_neighbors_by_psi() -> None:
    assert judge_one("x", (10,) * 10, (14,) * 5 + (6,) * 5, alpha=0.01).by == "ks"
    assert judge_one("x", (25,) * 4, (45, 5, 45, 5), alpha=0.01).by == "psi"


def test_a_bound_of_psi_by_hand() -> None:
    # chi-squared, 4 degrees of freedom, 0.99: 13.277; spread 1/100 + 1/400; widened by 1 + 5 * 0.0125.
    assert psi_bound(100, 400, 5, 0.01) == pytest.approx(0.0125 * 13.277 * 1.0625, rel=0.01)
    assert psi_bound(400, 100, 5, 0.01) == psi_bound(100, 400, 5, 0.01)


def test_a_bound_of_ks_by_hand() -> None:
    assert ks_bound(100, 400, 0.05) == pytest.approx(math.sqrt(math.log(40) / 2 * 0.0125))


def test_divergence_is_that_of_the_middle_of_both() -> None:
    assert jsd((1000, 0), (0, 1000)) == pytest.approx(math.log(2), abs=0.01)
    assert jsd((30, 70), (70, 30)) == pytest.approx(jsd((70, 30), (30, 70)))


@pytest.mark.parametrize(("reference", "window"), [((0, 0), (3, 4)), ((3, 4), (0, 0)), ((), ()), ((0, 0), (0, 0))])
def test_without_samples_nothing_differs(reference: tuple[int, ...], window: tuple[int, ...]) -> None:
    assert ks(reference, window) == 0.0


def test_a_mean_needs_two_samples() -> None:
    assert math.isnan(mean_bin((0, 1))[0])
    assert mean_bin((1, 1)) == (0.5, math.sqrt(0.5 / 2))
    assert mean_bin((0, 2)) == (1.0, 0.0)


def learned(windows: int = 10, mean: float = 2.0) -> PageHinkley:
    return PageHinkley(windows=windows, mean=mean)


def test_a_window_adds_its_deviation_in_standard_errors_less_the_slack() -> None:
    after = learned().add(2.0 + 3.0 * math.sqrt(1.1), 1.0)
    assert (after.windows, after.up, after.down) == (11, pytest.approx(2.5), 0.0)
    assert after.mean == pytest.approx(2.0 + 3.0 * math.sqrt(1.1) / 11)
    again = after.add(after.mean, 1.0)
    assert (again.up, again.down) == (pytest.approx(2.0), 0.0)
    below = learned().add(2.0 - 3.0 * math.sqrt(1.1), 1.0)
    assert (below.up, below.down) == (0.0, pytest.approx(2.5))


def test_the_alarm_is_over_its_limit_and_not_at_it() -> None:
    assert not PageHinkley(windows=20, up=8.0).alarm
    assert PageHinkley(windows=20, up=8.01).alarm
    assert PageHinkley(windows=20, down=8.01).alarm


def test_the_first_ten_windows_make_the_mean_only() -> None:
    sums = PageHinkley()
    for index in range(10):
        sums = sums.add(float(index), 0.01)
    assert (sums.windows, sums.mean, sums.up, sums.down) == (10, pytest.approx(4.5), 0.0, 0.0)
    assert sums.add(9.0, 0.01).up > 0.0
    assert sums.add(math.nan, 1.0) is sums
    assert sums.add(1.0, 0.0) is sums
