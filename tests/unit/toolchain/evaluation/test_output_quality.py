"""What one output loses and what all outputs are together, each figure worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from edge_bench.metrics.registry import METRICS
from edge_bench.metrics.table import Table, mean_of
from edge_bench.stats import Interval
from edge_compression.evaluation.limits import OutputLimit
from edge_compression.evaluation.quality import Compared, OutputQuality, judge_output, sampled_loss, together

RIGHT_BEFORE = np.repeat([1.0, 0.0], [90, 10])
RIGHT_AFTER = np.repeat([1.0, 0.0], [80, 20])
TOP1, RMSE = METRICS["top1"], METRICS["rmse"]
FIDELITY = next(metric for metric in METRICS.values() if metric.unit == "fidelity")
POINTS = OutputLimit(value=1.0, unit="points")


def bare(values: Any) -> Table:
    """Return a mean's table that does not say what each sample contributes."""
    whole = mean_of(np.asarray(values))
    return Table(count=whole.count, scores=whole.scores, resamples=whole.resamples)


def compared(before: Table, after: Table, **fields: Any) -> Compared:
    return Compared(**({"output": "y", "metric": TOP1, "limit": POINTS, "before": before, "after": after} | fields))


def output(name: str, verdict: str, bound: float, limit: float, **fields: Any) -> OutputQuality:
    given = {
        "output": name, "metric": "top1", "named": True, "score": 0.9, "original": 0.91, "drop": bound / 2.0,
        "drop_interval": Interval(low=bound / 4.0, high=bound * 2.0), "bound": bound, "limit": limit,
        "unit": "points", "verdict": verdict, "surely_over": False,
    }  # fmt: skip
    return OutputQuality(**(given | fields))


def test_an_output_says_what_the_original_and_the_candidate_score() -> None:
    found, _ = judge_output(compared(mean_of(RIGHT_BEFORE), mean_of(RIGHT_AFTER)), 0.75)
    assert (found.original, found.score) == pytest.approx((0.9, 0.8))
    assert (found.drop, found.verdict, found.surely_over) == (pytest.approx(10.0), "over", True)
    assert found.drop_interval.low < found.drop < found.bound < found.drop_interval.high


def test_answers_that_are_equal_are_shown_as_the_share_that_is() -> None:
    limit = OutputLimit(value=5.0, unit="%", exact=True)
    found, _ = judge_output(compared(mean_of([0.0] * 50), mean_of([0.0, 0.1] * 25), metric=FIDELITY, limit=limit), 0.75)
    assert (found.original, found.score) == pytest.approx((1.0, 0.95))


@pytest.mark.parametrize("who", ["before", "after"])
def test_one_table_without_its_samples_leaves_the_resamples_of_both(who: str) -> None:
    tables = {"before": mean_of(RIGHT_BEFORE), "after": mean_of(RIGHT_AFTER)}
    tables[who] = bare(RIGHT_BEFORE if who == "before" else RIGHT_AFTER)
    one = compared(tables["before"], tables["after"])
    found, quantile = judge_output(one, 0.75)
    assert found.drop == pytest.approx(10.0)
    assert quantile(0.5) == pytest.approx(10.0, abs=1.0)
    lost = sampled_loss(one)
    assert lost.means is None
    assert lost.draws is not None
    assert float(np.mean(lost.draws)) == pytest.approx(10.0, abs=1.0)


def test_a_loss_is_told_sample_by_sample_in_points_where_both_tables_can() -> None:
    lost = sampled_loss(compared(mean_of(RIGHT_BEFORE), mean_of(RIGHT_AFTER)))
    assert lost.draws is None
    assert lost.means is not None
    assert (lost.loss, float(lost.means.mean()), float(lost.means.max())) == pytest.approx((10.0, 10.0, 100.0))


def test_the_worst_verdict_decides_and_among_equal_ones_what_is_nearest_its_own_limit() -> None:
    within, near = output("a", "within", 0.5, 1.0), output("b", "within", 1.8, 2.0)
    undecided = output("c", "undecided", 0.1, 0.05)
    assert together((within, near), TOP1, 100).deciding is near
    assert together((near, within), TOP1, 100).deciding is near
    whole = together((within, near, undecided), TOP1, 100)
    assert whole.deciding is undecided
    assert (whole.verdict, whole.undecided, whole.samples) == ("undecided", True, 100)


def test_an_output_that_may_lose_nothing_is_judged_by_what_it_loses() -> None:
    strict, loose = output("a", "within", 0.4, 0.0), output("b", "within", 3.0, 10.0)
    assert together((loose, strict), TOP1, 10).deciding is strict
    looser = output("b", "within", 5.0, 10.0)
    assert together((looser, strict), TOP1, 10).deciding is looser


def test_what_all_lose_together_is_on_the_scale_of_the_first_limit() -> None:
    first, worst = output("a", "within", 0.1, 1.0), output("b", "over", 6.0, 4.0, surely_over=True)
    whole = together((first, worst), TOP1, 10)
    assert (whole.drop, whole.bound) == (3.0 / 4.0, 6.0 / 4.0)
    assert (whole.drop_interval.low, whole.drop_interval.high) == (1.5 / 4.0, 12.0 / 4.0)
    assert whole.surely_over
    alone = together((worst,), TOP1, 10)
    assert (alone.drop, alone.bound) == (3.0, 6.0)


def test_beside_a_first_output_that_may_lose_nothing_what_is_over_counts() -> None:
    first, worst = output("a", "within", 0.0, 0.0), output("b", "over", 6.0, 4.0)
    whole = together((first, worst), TOP1, 10)
    assert (whole.drop, whole.bound, whole.drop_interval.high) == (0.0, 2.0, 8.0)
    strict = output("c", "over", 0.3, 0.0)
    assert together((output("a", "within", 0.1, 1.0), strict), TOP1, 10).bound == 0.3


def test_the_score_of_all_is_the_first_outputs_and_more_is_better() -> None:
    pair = output("a", "within", 0.1, 1.0, score=0.25), output("b", "within", 0.1, 1.0, score=0.75)
    assert together(pair, TOP1, 10).score == 0.25
    assert together(pair, RMSE, 10).score == -0.25
    assert together(pair, FIDELITY, 10).score == 0.25  # shown as it is


def test_quality_of_nothing_has_no_output_that_decides() -> None:
    whole = together((output("a", "within", 0.1, 1.0),), TOP1, 10)
    assert replace(whole, outputs=()).deciding is None
