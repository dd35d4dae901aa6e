"""The thresholds a bundle states, with the coverage they had on other samples, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edge_compression.bundle.conformal import ALPHAS, FREE_RANKS, PENALTY, Labeled, classification, regression

SHA = "0" * 64


def test_regression_states_the_share_of_residuals_up_to_the_threshold() -> None:
    residuals = np.concatenate([np.arange(1, 100), [10.0, 90.0, 91.0, 200.0]])  # 99 calibrate, 4 check
    data = Labeled(answers=residuals, y=np.zeros(103), calibrate=np.arange(103) < 99)
    tenth, twentieth = regression(data, SHA)
    # The 90th and the 95th of 99: ceil(100 (1 - alpha)).
    assert (tenth.alpha, tenth.tau, tenth.samples, tenth.checked) == (0.1, 90.0, 99, 4)
    assert (tenth.coverage, tenth.set_size) == (0.5, 180.0)  # 10 and, just, 90 are covered
    assert (twentieth.alpha, twentieth.tau, twentieth.coverage, twentieth.set_size) == (0.05, 95.0, 0.75, 190.0)
    assert tenth.score == "absolute_residual"
    assert tenth.model_sha256 == SHA


def test_a_sample_of_several_outputs_is_as_wrong_as_its_worst() -> None:
    answers = np.zeros((40, 2))
    answers[:, 0], answers[:, 1] = 1.0, -np.arange(40)
    data = Labeled(answers=answers, y=np.zeros((40, 2), np.float32), calibrate=np.ones(40, bool))
    (tenth, twentieth) = regression(data, SHA)
    assert (tenth.tau, twentieth.tau) == (36.0, 38.0)
    assert (tenth.checked, tenth.coverage, tenth.set_size) == (0, None, None)  # nothing was kept back


@pytest.mark.parametrize(("samples", "alphas"), [(8, ()), (9, (0.1,)), (18, (0.1,)), (19, (0.1, 0.05))])
def test_no_threshold_is_made_of_too_few_samples(samples: int, alphas: tuple[float, ...]) -> None:
    data = Labeled(answers=np.arange(samples, dtype=float), y=np.zeros(samples), calibrate=np.ones(samples, bool))
    assert tuple(one.alpha for one in regression(data, SHA)) == alphas
    rows = np.tile([0.7, 0.3], (samples, 1))
    labels = Labeled(answers=rows, y=np.zeros(samples, int), calibrate=np.ones(samples, bool))
    assert [(one.score, one.alpha) for one in classification(labels, SHA)] == [
        (score, alpha) for score in ("lac", "raps") for alpha in alphas
    ]


def test_classification_states_the_coverage_and_size_of_its_sets() -> None:
    sure, unsure = [0.8, 0.15, 0.05], [0.5, 0.3, 0.2]
    rows = np.array([sure] * 90 + [unsure] * 9 + [sure, unsure, unsure, sure])
    y = np.array([0] * 90 + [1] * 9 + [0, 0, 2, 1])
    data = Labeled(answers=rows, y=y, calibrate=np.arange(103) < 99)
    found = {(one.score, one.alpha): one for one in classification(data, SHA)}
    lac = found["lac", 0.1]
    assert (lac.tau, lac.samples, lac.checked) == (pytest.approx(0.2), 99, 4)
    assert (lac.coverage, lac.set_size) == (0.25, 0.5)  # of 1 - p <= 0.2: the sure samples' likeliest class only
    wide = found["lac", 0.05]
    assert wide.tau == pytest.approx(0.7)
    assert (wide.coverage, wide.set_size) == (0.5, 1.5)
    raps = found["raps", 0.1]
    assert raps.tau == pytest.approx(0.8)
    assert (raps.penalty, raps.free_ranks) == (PENALTY, FREE_RANKS) == (0.01, 2)
    assert (lac.penalty, lac.free_ranks) == (0.0, 0)
    assert ALPHAS == (0.1, 0.05)
