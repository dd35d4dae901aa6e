"""Preliminary dominance and the words about a drop."""

from __future__ import annotations

import pytest

from edge_compression.evaluation.pareto import (
    PreliminaryMeasurement,
    dominates_preliminarily,
    exceeds,
    loses,
)


@pytest.mark.parametrize(
    ("drop", "text"),
    [
        (1.234, "loses 1.23 points"),
        (-0.5, "gains 0.50 points"),
        (-0.001, "loses 0.00 points"),
        (0.0, "loses 0.00 points"),
    ],
)
def test_a_drop_in_words(drop: float, text: str) -> None:
    assert loses(drop) == text


def test_rounding_is_no_excess() -> None:
    assert not exceeds(1.0 + 0.9e-9, 1.0)
    assert exceeds(1.0 + 1.5e-9, 1.0)


@pytest.mark.parametrize(
    ("better", "worse", "dominated"),
    [
        ((1.0, 10, 1.0), (1.0, 10, 1.0), False),
        ((1.0, 10, 1.0), (1.0, 11, 1.0), True),
        ((0.5, 10, 1.0), (1.0, 10, 1.0), True),
        ((1.0, 10, 0.9), (1.0, 10, 1.0), True),
        ((0.5, 11, 1.0), (1.0, 10, 1.0), False),
        ((0.5, 9, 1.1), (1.0, 10, 1.0), False),
    ],
)
def test_who_is_as_good_in_all_and_better_in_one(
    better: tuple[float, int, float], worse: tuple[float, int, float], dominated: bool
) -> None:
    first, second = (PreliminaryMeasurement(loss=a, size=b, pace=c) for a, b, c in (better, worse))
    assert dominates_preliminarily(first, second) is dominated
