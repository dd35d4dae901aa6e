"""Which of two models is faster: the statistics, on made-up measurements."""

from __future__ import annotations

import random

import numpy as np
import pytest

from edge_bench.compare import LatencyComparison, compare_reports, median_bounds, sentence
from edge_bench.report import SubjectReport
from edge_contracts.errors import OperatorError


def measured(ms: float, *, rounds: int = 7, noise: float = 0.002, seed: int = 1) -> SubjectReport:
    draws = np.random.default_rng(seed)
    found = tuple(tuple(ms * (1 + noise * draws.standard_normal(50))) for _ in range(rounds))
    return SubjectReport(name="m", size=1, sha256="0" * 64, rounds_ms=found)


def test_the_bounds_are_the_order_statistics_that_hold_the_median() -> None:
    assert median_bounds(range(8), 0.98) == (0, 7)  # 1 - 2 / 256
    assert median_bounds(range(16), 0.98) == (2, 13)  # 1 - 2 * 137 / 65536; one further in: 0.979
    assert median_bounds(range(20), 0.98) == (4, 15)


def test_the_bounds_hold_the_median_as_often_as_they_say() -> None:
    chance = random.Random(3)
    held = 0
    for _ in range(1000):
        low, high = median_bounds([chance.expovariate(1.0) for _ in range(12)], 0.98)
        held += low <= 0.6931 <= high
    assert held >= 970


def test_a_report_against_itself_shows_no_difference() -> None:
    found = compare_reports(("a", "b"), (measured(1.0), measured(1.0, seed=2)), 0)
    assert found.verdict == "none"
    assert found.low <= 1.0 <= found.high
    assert not found.interleaved


@pytest.mark.parametrize(("a", "b", "verdict"), [(1.0, 1.1, "a"), (1.1, 1.0, "b")])
def test_the_faster_one_is_named(a: float, b: float, verdict: str) -> None:
    found = compare_reports(("a", "b"), (measured(a), measured(b, seed=2)), 0)
    assert found.verdict == verdict
    assert found.ratio == pytest.approx(b / a, rel=0.005)


def test_a_difference_below_one_percent_is_none_however_sure() -> None:
    found = compare_reports(("a", "b"), (measured(1.0, noise=1e-6), measured(1.009, noise=1e-6)), 0)
    assert found.low > 1.0
    assert found.verdict == "none"


def test_reports_without_raw_samples_are_named() -> None:
    with pytest.raises(OperatorError, match="b: holds no raw samples"):
        compare_reports(("a", "b"), (measured(1.0), measured(1.0, rounds=2)), 0)


def test_the_sentence_names_the_faster_one_and_how_sure_it_is() -> None:
    found = LatencyComparison(
        a="x", b="y", verdict="b", ratio=0.8, low=0.79, high=0.82, confidence=0.98, interleaved=True, a_ms=1.0,
        b_ms=0.8, pairs=12, seconds=30.0, ratios=(0.8,),
    )  # fmt: skip
    assert sentence(found).startswith("B is faster, 1.250 times: A x 1.000 ms, B y 0.800 ms (98% interval")
