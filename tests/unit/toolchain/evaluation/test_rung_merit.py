"""What one candidate has over another: differences beyond the interval of the paired comparison."""

from __future__ import annotations

import numpy as np
import pytest

from edge_bench.metrics.registry import METRICS, Parameters
from edge_compression.evaluation.limits import plain_limit
from edge_compression.evaluation.quality import Compared, sampled_loss
from edge_compression.evaluation.rung_merit import Evidence, SampledLoss, faster, loses_less, speed_ratio

CALM = [1.00, 1.02, 0.99, 1.01, 1.00, 0.98, 1.03, 1.01, 0.97, 1.00, 1.02, 0.99]


def answered(wrong: int, count: int = 500, first: int = 0) -> SampledLoss:
    """The loss of a classifier that gets so many samples wrong which the original gets right."""
    y = np.zeros(count, np.int64)
    right = np.tile([1.0, 0.0], (count, 1))
    own = right.copy()
    own[first : first + wrong] = [0.0, 1.0]
    metric = METRICS["top1"]
    before, after = (metric.table(answers, y, Parameters()) for answers in (right, own))
    return sampled_loss(Compared(output="", metric=metric, limit=plain_limit(metric, 1.0), before=before, after=after))


def test_a_few_samples_of_five_hundred_are_no_merit() -> None:
    assert not loses_less([answered(0)], [answered(3)])
    assert loses_less([answered(0)], [answered(12)])


def test_what_both_get_wrong_says_nothing() -> None:
    assert not loses_less([answered(40)], [answered(42)])
    assert loses_less([answered(40)], [answered(60)])
    assert (
        answered(40).more_than(answered(40, first=60)).low < 0.0 < answered(40).more_than(answered(40, first=60)).high
    )


def test_an_error_that_is_surely_but_hardly_smaller_is_no_merit() -> None:
    y = np.linspace(0.0, 10.0, 400)[:, None]
    metric = METRICS["mae"]
    noise = np.random.default_rng(0).normal(0.0, 1.0, y.shape)

    def loss(factor: float) -> SampledLoss:
        before, after = (metric.table(y + noise * one, y, Parameters()) for one in (1.0, factor))
        return sampled_loss(
            Compared(output="", metric=metric, limit=plain_limit(metric, 5.0), before=before, after=after)
        )

    assert loss(1.003).more_than(loss(1.0)).low > 0.0
    assert not loses_less([loss(1.0)], [loss(1.003)])
    assert loses_less([loss(1.0)], [loss(1.04)])


def test_any_output_counts() -> None:
    assert loses_less([answered(5), answered(0)], [answered(5), answered(12)])


def test_a_speed_is_a_merit_when_nearly_all_rounds_show_it() -> None:
    assert faster(CALM, [1.2 * one for one in CALM])
    assert not faster(CALM, [1.03 * one for one in CALM])
    assert faster(CALM, [1.2 * one for one in CALM[:-2]] + [0.4, 0.7])  # two disturbed rounds of twelve
    unsteady = [1.6, 0.9, 1.5, 0.8, 1.1, 1.7, 0.7] * 2
    assert not faster(CALM, unsteady[:12])


@pytest.mark.parametrize("rounds", [1, 5, 6, 7, 12, 24])
def test_an_interval_of_speed_holds_the_middle(rounds: int) -> None:
    slower = [2.0 * one for one in (CALM * 2)[:rounds]]
    found = speed_ratio((CALM * 2)[:rounds], slower)
    assert found.low <= 2.0 + 1e-9
    assert found.high >= 2.0 - 1e-9


def test_pairs_are_compared_on_as_many_samples_as_both_have_answered() -> None:
    few, many = [answered(0, 100)], [answered(2, 100)]
    evidence = Evidence(choosing={"a": few, "b": many}, everywhere={"a": [answered(0)], "b": [answered(20)]}, rounds={})
    assert evidence.loses_less("a", "b")
    assert not Evidence(choosing={"a": few, "b": many}, everywhere={"a": [answered(0)]}, rounds={}).loses_less("a", "b")
