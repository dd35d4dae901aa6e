"""Errors and scores worked out by hand, at the sizes where they are decided otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_agent.errors import OperatorError
from edge_agent.inference.quality_metrics import decibels, golden_error, mae, relative_error, rmse, score, top1

TWO = np.float32([[0.2, 0.8], [0.9, 0.1], [0.4, 0.6]])


def test_two_classes_are_enough_and_one_number_or_a_bare_row_is_none() -> None:
    assert top1(TWO, np.array([1, 0, 0])) == pytest.approx(2 / 3)
    for outputs in (np.float32([[1.0], [2.0]]), np.float32([0.2, 0.8])):
        with pytest.raises(OperatorError, match="one number per class"):
            top1(outputs, np.array([0]))


def test_every_place_of_an_image_is_a_sample() -> None:
    outputs = np.zeros((1, 2, 2, 3), np.float32)
    outputs[0, 0, 0, 2] = outputs[0, 1, 1, 1] = 1.0
    assert top1(outputs, np.array([[[2, 0], [0, 2]]])) == 0.75


def test_errors_are_those_of_the_definition() -> None:
    outputs, targets = np.float32([[1.0], [4.0]]), np.float32([0.0, 0.0])
    assert mae(outputs, targets) == pytest.approx(-2.5)
    assert rmse(outputs, targets) == pytest.approx(-math.sqrt(8.5))
    assert score("rmse", [outputs], targets) == rmse(outputs, targets)


def test_a_difference_is_relative_to_the_range_and_not_to_the_size() -> None:
    golden = np.float32([[100.0, 102.0]])
    assert golden_error([golden + 1.0], [golden]) == pytest.approx(0.5)


def test_a_constant_is_held_against_its_own_size() -> None:
    golden = np.float32([[-4.0, -4.0]])
    assert golden_error([golden + 1.0], [golden]) == pytest.approx(0.25)
    assert golden_error([np.float32([[1e-13]])], [np.float32([[0.0]])]) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("error_of", [lambda a, b: golden_error([a], [b]), relative_error])
def test_numbers_that_are_none_have_to_be_at_the_same_places(error_of: object) -> None:
    nan, inf = math.nan, math.inf
    assert callable(error_of)
    assert error_of(np.float32([1.0, nan]), np.float32([1.0, nan])) == 0.0
    assert error_of(np.float32([nan, nan]), np.float32([nan, nan])) == 0.0
    assert error_of(np.float32([1.0, nan]), np.float32([1.0, 2.0])) == inf
    assert error_of(np.float32([1.0, 2.0]), np.float32([1.0, inf])) == inf
    assert error_of(np.float32([1.0, 2.0]), np.float32([[1.0, 2.0]])) == inf
    assert error_of(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)) == 0.0


def test_no_outputs_differ_by_nothing_and_another_number_of_them_by_everything() -> None:
    assert golden_error([], []) == 0.0
    assert golden_error([TWO], [TWO, TWO]) == math.inf


def test_an_error_is_relative_to_the_size_of_the_answers() -> None:
    reference = np.float32([3.0, -3.0, 3.0, -3.0])
    assert relative_error(reference + 0.3, reference) == pytest.approx(0.1)
    assert relative_error(np.float32([6.0, -3.0, 3.0, -3.0]), reference) == pytest.approx(0.5)


def test_answers_far_from_zero_and_close_together_are_held_against_their_spread() -> None:
    reference = np.float32([99.0, 101.0])
    assert relative_error(reference + 1.0, reference) == pytest.approx(0.2)
    assert relative_error(np.float32([101.0, 101.0]), np.float32([100.0, 100.0])) == pytest.approx(0.01)


def test_whole_numbers_differ_by_their_share() -> None:
    assert relative_error(np.array([1, 2, 3, 5]), np.array([1, 2, 3, 4])) == 0.25


@pytest.mark.parametrize(("error", "signal"), [(1.0, 0.0), (0.1, 20.0), (0.001, 60.0), (0.0, 200.0), (1e-20, 200.0)])
def test_an_error_in_decibels(error: float, signal: float) -> None:
    assert decibels(error) == pytest.approx(signal)
