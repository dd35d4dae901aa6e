"""Thresholds and sets against MAPIE's, another implementation of the same papers, on the same scores.

MAPIE randomizes its adaptive scores and chooses RAPS's penalty itself, which ours does not: of RAPS its deterministic
parts are compared, the scores of the truth with their ranks and penalties, and the quantile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from mapie.conformity_scores.sets import RAPSConformityScore
from mapie.regression import SplitConformalRegressor
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from edge_agent.inference.conformal import lac, raps
from edge_compression.bundle.conformal import ALPHAS, FREE_RANKS, PENALTY, Labeled, classification, regression

SHA = "0" * 64
CLASSES, CALIBRATION, FRESH = 7, 300, 400


class Probabilities(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose inputs are its answers."""

    def __init__(self) -> None:
        self.classes_ = np.arange(CLASSES)

    def fit(self, x: Any, y: Any) -> Probabilities:
        return self

    def predict_proba(self, x: Any) -> Any:
        return x

    def predict(self, x: Any) -> Any:
        return x.argmax(axis=1)

    def __sklearn_is_fitted__(self) -> bool:
        return True


class Values(RegressorMixin, BaseEstimator):
    """A fitted regressor whose inputs are its answers."""

    def __init__(self) -> None:
        self.fitted_ = True

    def fit(self, x: Any, y: Any) -> Values:
        return self

    def predict(self, x: Any) -> Any:
        return x[:, 0]

    def __sklearn_is_fitted__(self) -> bool:
        return True


def classes(seed: int) -> tuple[Any, Any, Any]:
    """Return probabilities, the truth, and which samples calibrate."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2.0, size=(CALIBRATION + FRESH, CLASSES))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = np.array([rng.choice(CLASSES, p=row) for row in p])
    return p, y, np.arange(len(y)) < CALIBRATION


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("alpha", ALPHAS)
def test_lac_sets_are_those_of_mapie(seed: int, alpha: float) -> None:
    p, y, marks = classes(seed)
    oracle = SplitConformalClassifier(Probabilities(), confidence_level=1 - alpha, conformity_score="lac", prefit=True)
    _, theirs = oracle.conformalize(p[marks], y[marks]).predict_set(p[~marks])
    made = classification(Labeled(answers=p, y=y, calibrate=marks), SHA)
    (tau,) = [one.tau for one in made if (one.score, one.alpha) == ("lac", alpha)]
    assert ((lac(p[~marks]) <= tau) == theirs[:, :, 0]).all()


@pytest.mark.parametrize("seed", range(5))
def test_raps_scores_of_the_truth_are_those_of_mapie(seed: int) -> None:
    p, y, _ = classes(seed)
    mass, rank = RAPSConformityScore.get_true_label_cumsum_proba(y, p, np.arange(CLASSES))
    regularised = RAPSConformityScore._regularize_conformity_score(np.array([FREE_RANKS]), PENALTY, mass, rank)
    ours = raps(p, penalty=PENALTY, free_ranks=FREE_RANKS)[np.arange(len(y)), y]
    np.testing.assert_allclose(ours, regularised[:, 0, 0], rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("alpha", ALPHAS)
def test_widths_are_those_of_mapie(seed: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    answers = rng.normal(size=(CALIBRATION + FRESH, 1))
    y = answers[:, 0] + rng.standard_t(4, size=len(answers))
    marks = np.arange(len(y)) < CALIBRATION
    oracle = SplitConformalRegressor(Values(), confidence_level=1 - alpha, conformity_score="absolute", prefit=True)
    _, theirs = oracle.conformalize(answers[marks], y[marks]).predict_interval(answers[~marks])
    made = regression(Labeled(answers=answers, y=y, calibrate=marks), SHA)
    (tau,) = [one.tau for one in made if one.alpha == alpha]
    np.testing.assert_allclose(answers[~marks] + [-tau, tau], theirs[:, :, 0], rtol=1e-12)
