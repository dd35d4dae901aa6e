"""Sets of one sample and of many by the same rule, worked out by hand at the edges of the quick way."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from edge_agent.inference.conformal import Predictor, lac, raps, threshold_of
from edge_agent.inference.rungs.quick_confidence import MAX_CLASSES
from edge_contracts.manifest import Output
from edge_contracts.reference import ConformalThreshold

Kind = Literal["logits", "probabilities", "values"]


def predictor(tau: float, kind: Kind = "probabilities", score: str = "lac", classes: int = 3) -> Predictor:
    threshold = ConformalThreshold(
        score=score, alpha=0.1, tau=tau, samples=100, model_sha256="0" * 64, penalty=0.1, free_ranks=1
    )  # type: ignore[arg-type]
    return Predictor(threshold, Output(name="y", dtype="float32", shape=(-1, classes), kind=kind))


def sets(one: Predictor, rows: list[list[float]]) -> tuple[tuple[int, ...], ...]:
    return one.predict({"y": np.array(rows)}).sets


@pytest.mark.parametrize("row", [[0.6, 0.5, 0.1], [0.5, 0.6, 0.1], [0.1, 0.5, 0.6]])
def test_a_class_at_the_threshold_itself_is_in_the_set_of_one_as_of_many(row: list[float]) -> None:
    expected = tuple(index for index, value in enumerate(row) if value >= 0.5)
    assert sets(predictor(0.5), [row]) == (expected,)
    assert sets(predictor(0.5), [row, row]) == (expected, expected)


def test_large_logits_have_a_set() -> None:
    assert sets(predictor(0.5, "logits"), [[900.0, 0.0, 900.0]]) == ((0, 2),)
    assert sets(predictor(0.9, "logits"), [[-900.0, -900.0, -2000.0]]) == ((0, 1),)


def test_a_lone_sample_by_raps_gets_what_it_gets_among_others() -> None:
    rows = [[0.5, 0.3, 0.2], [0.9, 0.06, 0.04], [0.1, 0.2, 0.7]]
    one = predictor(0.85, score="raps")  # 0.5; 0.3 + 0.5 + 0.1; 0.9; 0.7
    assert sets(one, rows) == ((0,), (0,), (2,))
    assert [sets(one, [row])[0] for row in rows] == [(0,), (0,), (2,)]
    wide = predictor(0.95, score="raps")
    assert sets(wide, rows)[0] == sets(wide, rows[:1])[0] == (0, 1)


def test_several_samples_have_a_set_each_wherever_they_lie() -> None:
    image = np.array([[[[0.9, 0.1], [0.1, 0.9]], [[0.5, 0.5], [0.2, 0.8]]]])
    found = predictor(0.6, classes=2).predict({"y": image})
    assert found.sets == ((0,), (1,), (0, 1), (1,))
    assert found.largest == 2


@pytest.mark.parametrize("classes", [1, 2, MAX_CLASSES, MAX_CLASSES + 1])
def test_any_number_of_classes_has_a_set(classes: int) -> None:
    row = [0.0] * classes
    row[-1] = 1.0
    assert sets(predictor(0.5, classes=classes), [row]) == ((classes - 1,),)


def test_coverage_is_what_the_threshold_was_made_for() -> None:
    found = predictor(0.25, "values", score="absolute_residual").predict({"y": np.zeros((2, 3))})
    assert (found.coverage, found.width, found.sets) == (0.9, 0.25, ())


def test_scores_by_hand() -> None:
    p = np.array([[0.5, 0.2, 0.3]])
    assert lac(p) == pytest.approx(np.array([[0.5, 0.8, 0.7]]))
    assert raps(p, penalty=0.1, free_ranks=1) == pytest.approx(np.array([[0.5, 1.0 + 0.2, 0.8 + 0.1]]))
    assert raps(p, penalty=0.1, free_ranks=0) == pytest.approx(np.array([[0.6, 1.3, 1.0]]))


@pytest.mark.parametrize(
    ("count", "alpha", "rank"), [(9, 0.1, 9), (19, 0.1, 18), (20, 0.1, 19), (8, 0.1, None), (1, 0.5, 1), (0, 0.5, None)]
)
def test_a_threshold_is_the_order_statistic_of_the_theorem(count: int, alpha: float, rank: int | None) -> None:
    scores = np.random.default_rng(1).permutation(np.arange(1.0, count + 1))
    assert threshold_of(scores, alpha) == rank
