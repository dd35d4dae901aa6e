"""Bounds on what a candidate loses, for every metric, against published figures and against the bootstrap by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edge_bench.stats import RESAMPLES
from edge_compression.evaluation.paired_statistics import flips, resampled, two_sided
from edge_compression.evaluation.quality import QualityRequest, compare, compare_exact, refuted


def cells(same: int, lost: int, won: int) -> Any:
    return np.array([0.0] * same + [1.0] * lost + [-1.0] * won)


def test_the_interval_of_flips_is_agresti_and_min_s() -> None:
    """The prime minister's approval, 1600 asked twice: 150 turned away, 86 came to approve (Agresti 1990, p. 350).
    Agresti and Min add half a person to each of the four cells: (150.5 - 86.5) / 1602 -+ 1.96 sqrt(...) / 1602."""
    quantile = flips(cells(1364, 150, 86))
    assert quantile is not None
    spread = math.sqrt(150.5 + 86.5 - (150.5 - 86.5) ** 2 / 1602) / 1602
    found = two_sided(quantile)
    assert found.low == pytest.approx(100 * (64 / 1602 - 1.959964 * spread), abs=1e-4)
    assert found.high == pytest.approx(100 * (64 / 1602 + 1.959964 * spread), abs=1e-4)
    assert (found.low, found.high) == pytest.approx((2.12, 5.87), abs=0.01)


def test_the_interval_leaves_the_same_share_out_at_both_ends() -> None:
    assert two_sided(lambda share: share).low == pytest.approx(2.5)
    assert two_sided(lambda share: share).high == pytest.approx(97.5)
    assert two_sided(lambda share: share, 0.8).low == pytest.approx(10.0)
    assert two_sided(lambda share: share, 0.8).high == pytest.approx(90.0)


def test_no_bound_is_beyond_losing_or_winning_everything() -> None:
    every = flips(cells(0, 3, 0))
    assert every is not None
    assert every(0.9999) == 1.0
    none = flips(cells(0, 0, 3))
    assert none is not None
    assert none(0.0001) == -1.0


def test_differences_that_are_no_flips_are_left_to_the_bootstrap() -> None:
    assert flips(np.array([0.0, 0.5, 1.0])) is None
    assert flips(np.array([0.0, 2.0])) is None


def test_the_bootstrap_of_means_is_that_of_resamples_by_hand() -> None:
    gained = np.random.default_rng(3).normal(0.2, 1.0, 60)
    quantile, generator = resampled(gained), np.random.default_rng(5)
    means = [generator.choice(gained, gained.size).mean() for _ in range(RESAMPLES)]
    for share in (0.05, 0.5, 0.95):
        assert quantile(share) == pytest.approx(float(np.quantile(means, share)), abs=0.03)


Y = np.random.default_rng(11).normal(0.0, 1.0, (200, 1))
GOOD = Y + np.random.default_rng(12).normal(0.0, 0.1, Y.shape)
BAD = Y + 2.0 * (GOOD - Y) + np.random.default_rng(13).normal(0.0, 0.02, Y.shape)


def size_of(metric: str, answers: Any) -> float:
    errors = np.abs(answers - Y)
    return float(np.sqrt(np.square(errors).mean()) if metric == "rmse" else errors.mean())


@pytest.mark.parametrize("metric", ["rmse", "mae"])
def test_an_error_twice_as_large_is_a_loss_of_its_own_size_within_its_interval(metric: str) -> None:
    found = compare(QualityRequest(metric=metric, limit=1.0), BAD, GOOD, Y)
    expected = 100.0 * (size_of(metric, BAD) / size_of(metric, GOOD) - 1.0)
    assert found.drop == pytest.approx(expected)
    assert 0.8 * expected < found.drop_interval.low < expected < found.bound < found.drop_interval.high < 1.2 * expected
    assert (found.verdict, found.surely_over, found.undecided) == ("over", True, False)
    assert (found.agreement, found.p_value, found.samples) == (None, None, 200)
    better = compare(QualityRequest(metric=metric, limit=1.0), GOOD, BAD, Y)
    assert better.drop == pytest.approx(100.0 * (size_of(metric, GOOD) / size_of(metric, BAD) - 1.0))
    assert better.bound < 0.0
    assert (better.verdict, better.surely_over) == ("within", False)


@pytest.mark.parametrize("metric", ["rmse", "mae"])
def test_samples_kept_back_refute_a_loss_of_more_than_allowed(metric: str) -> None:
    loss = 100.0 * (size_of(metric, BAD) / size_of(metric, GOOD) - 1.0)
    assert refuted(QualityRequest(metric=metric, limit=0.7 * loss), BAD, GOOD, Y)
    assert not refuted(QualityRequest(metric=metric, limit=1.4 * loss), BAD, GOOD, Y)
    assert not refuted(QualityRequest(metric=metric, limit=0.0), GOOD, BAD, Y)


def test_a_refutation_is_in_points_and_as_sure_as_it_was_asked_to_be() -> None:
    truth = np.repeat(np.arange(2), 100)
    right = np.eye(2)[truth]
    wrong = right.copy()
    wrong[:10] = wrong[:10, ::-1]  # 5 points
    assert refuted(QualityRequest(metric="top1", limit=3.5, confidence=0.75), wrong, right, truth)
    assert not refuted(QualityRequest(metric="top1", limit=3.5, confidence=0.95), wrong, right, truth)
    assert not refuted(QualityRequest(metric="top1", limit=5.0, confidence=0.75), wrong, right, truth)


def test_the_worst_slice_is_the_one_that_loses_most() -> None:
    truth = np.repeat(np.arange(2), 50)
    right = np.eye(2)[truth]
    wrong = right.copy()
    wrong[:6] = wrong[:6, ::-1]
    slices = np.array(["a"] * 10 + ["b"] * 40 + ["c"] * 50)
    found = compare(QualityRequest(metric="top1", limit=50.0), wrong, right, truth, slices)
    assert (found.worst_slice, found.worst_slice_drop) == ("a", pytest.approx(60.0))
    assert compare(QualityRequest(metric="top1", limit=50.0), wrong, right, truth).worst_slice is None


@pytest.mark.parametrize(
    ("gap", "differing"), [(0.04, 0), (0.05, 0), (0.06, 100)]
)  # of a range of 1: one in twenty is another computation
def test_numbers_differ_from_a_twentieth_of_their_range(gap: float, differing: int) -> None:
    exact = np.linspace(0.0, 1.0, 100).reshape(100, 1)
    optimized = np.vstack([exact + gap * 0.999, np.ones((7, 1))])
    truth = np.zeros((107, 1))
    found = compare_exact("mae", optimized, exact, truth)
    assert (found.samples, found.differing) == (100, differing)
    assert found.largest_difference == pytest.approx(gap, rel=0.01)
    assert (found.hazard is None) is (differing == 0)
    assert found.score_exact == pytest.approx(0.5, abs=1e-6) or found.score_exact == pytest.approx(-0.5, abs=1e-6)


def test_constant_numbers_are_held_against_a_range_of_one() -> None:
    exact = np.full((50, 1), 3.0)
    assert compare_exact("mae", exact + 0.04, exact, exact).differing == 0
    assert compare_exact("mae", exact + 0.06, exact, exact).differing == 50


def test_a_few_classes_that_differ_are_noise_and_many_are_a_hazard() -> None:
    truth = np.repeat(np.arange(2), 100)
    exact = np.eye(2)[truth]
    for count, hazard in ((10, False), (17, False), (18, True), (60, True)):
        optimized = exact.copy()
        optimized[:count] = optimized[:count, ::-1]
        found = compare_exact("top1", optimized, exact, truth)
        assert found.differing == count
        assert (found.hazard is not None) is hazard, count
        if found.hazard is not None:
            assert found.hazard.startswith(f"{count} of 200 answers differ")
