"""Metrics and golden comparison, against values computed by hand."""

import math

import numpy as np
import pytest

from edge_agent.inference.quality_metrics import agreement, golden_error, score
from edge_contracts.errors import OperatorError

LOGITS = np.float32([[1, 2, 0], [5, 1, 1], [0, 0, 3], [9, 1, 0]])


def test_top1_is_the_share_of_right_classes():
    assert score("top1", [LOGITS], np.array([1, 0, 2, 2])) == 0.75


def test_an_answer_with_nan_is_wrong_even_if_it_points_to_the_right_class():
    outputs = LOGITS.copy()
    outputs[0, 1] = np.nan
    assert score("top1", [outputs], np.array([1, 0, 2, 0])) == 0.75


def test_errors_are_negated_so_that_higher_is_better():
    outputs, targets = np.float32([[1.0], [4.0]]), np.array([2.0, 1.0])
    assert score("mae", [outputs], targets) == -2.0
    assert score("rmse", [outputs], targets) == -math.sqrt(5)


@pytest.mark.parametrize(("metric", "outputs"), [("f1", LOGITS), ("top1", LOGITS[:, :1]), ("mae", LOGITS)])
def test_a_metric_that_does_not_fit_is_refused(metric, outputs):
    with pytest.raises(OperatorError, match="metric"):
        score(metric, [outputs], np.zeros(4))


def test_agreement_compares_classes():
    assert agreement(LOGITS, LOGITS * 2) == 1.0
    assert agreement(LOGITS, -LOGITS) == 0.0


@pytest.mark.parametrize(
    ("outputs", "golden", "error"),
    [
        ([0.0, 10.0], [0.0, 10.0], 0.0),
        ([0.0, 9.0], [0.0, 10.0], 0.1),
        ([5.0, 5.0], [4.0, 4.0], 0.25),
        ([math.nan, 1.0], [0.0, 1.0], math.inf),
        ([math.nan, 1.0], [math.nan, 1.0], 0.0),
        ([0.0], [0.0, 1.0], math.inf),
        ([], [], 0.0),
    ],
)
def test_golden_error_is_relative_to_the_range(outputs, golden, error):
    assert golden_error([np.array(outputs)], [np.array(golden)]) == pytest.approx(error)


def test_the_worst_output_counts_and_a_missing_one_is_infinite():
    good, bad = np.array([0.0, 1.0]), np.array([0.0, 0.5])
    assert golden_error([good, bad], [good, good]) == 0.5
    assert golden_error([good], [good, good]) == math.inf
