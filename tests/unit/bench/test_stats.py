"""The statistics against numpy and published or hand-computed values."""

import numpy as np
import pytest

from edge_bench.stats import (
    binomial_cdf,
    binomial_quantile,
    coefficient_of_variation,
    mcnemar_exact,
    median_interval,
    paired_drop_interval,
    summarize,
    wilson_upper,
)


def test_percentiles_are_those_of_all_samples_together() -> None:
    rounds = [np.random.default_rng(seed).gamma(4.0, 1.0, 200) for seed in range(5)]
    found = summarize(rounds)
    samples = np.concatenate(rounds)
    assert (found.p50, found.p90, found.p99) == pytest.approx(tuple(np.percentile(samples, (50, 90, 99))))
    assert found.count == 1000
    assert found.per_second == pytest.approx(1000 / samples.mean())


def test_no_samples_are_no_summary() -> None:
    with pytest.raises(ValueError, match="no latency"):
        summarize([])


def test_one_late_interrupt_does_not_make_a_run_unstable_but_a_drift_does() -> None:
    steady = [np.full(100, 1.0) for _ in range(7)]
    steady[3] = np.r_[np.full(99, 1.0), 50.0]
    assert summarize(steady).stable
    assert not summarize([np.full(100, 1.0 + 0.1 * turn) for turn in range(7)]).stable


def test_coefficient_of_variation_is_numpys() -> None:
    values = np.array([1.0, 2.0, 4.0])
    assert coefficient_of_variation(values) == pytest.approx(np.std(values, ddof=1) / np.mean(values))
    assert coefficient_of_variation(np.array([3.0])) == 0.0


def test_the_median_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(60):
        interval = median_interval(np.random.default_rng(seed).normal(5.0, 1.0, 80), seed=seed)
        covered += interval.low <= 5.0 <= interval.high
    assert covered >= 50  # 57 of 60 expected; fewer than 50 has a chance below 1e-3


def test_the_median_interval_is_that_of_drawn_resamples() -> None:
    generator = np.random.default_rng(4)
    samples = generator.gamma(2.0, 1.0, 101)
    drawn = np.median(samples[generator.integers(0, 101, (4000, 101))], axis=1)
    interval = median_interval(samples)
    assert interval.low == pytest.approx(np.quantile(drawn, 0.025), abs=0.05)
    assert interval.high == pytest.approx(np.quantile(drawn, 0.975), abs=0.05)


def test_mcnemar_has_the_values_of_the_binomial_table() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(1, 9) == pytest.approx(2 * 11 / 1024)
    assert mcnemar_exact(9, 1) == mcnemar_exact(1, 9)
    assert mcnemar_exact(5, 5) == 1.0


def test_the_paired_interval_holds_the_normal_approximation() -> None:
    gained = np.r_[np.ones(30), -np.ones(10), np.zeros(960)]
    interval = paired_drop_interval(gained)
    spread = 1.96 * gained.std() / np.sqrt(gained.size)
    assert interval.low == pytest.approx(0.02 - spread, abs=0.002)
    assert interval.high == pytest.approx(0.02 + spread, abs=0.002)


def test_equal_answers_have_an_interval_of_zero_width() -> None:
    interval = paired_drop_interval(np.zeros(100))
    assert (interval.low, interval.high) == (0.0, 0.0)


def test_binomial_functions_agree_with_direct_sums() -> None:
    assert binomial_cdf(2, 4, 0.5) == pytest.approx(11 / 16)
    assert binomial_cdf(4, 4, 0.3) == 1.0
    assert binomial_quantile(0.5, 10, 0.5) == 5
    assert binomial_quantile(0.99, 10, 0.0) == 0
    assert binomial_quantile(0.99, 10, 1.0) == 10


def test_wilson_bound_has_its_published_shape() -> None:
    # For no event in n trials the bound is z^2 / (n + z^2).
    z = 2.3263478740408408
    assert wilson_upper(0, 100) == pytest.approx(z * z / (100 + z * z))
    assert wilson_upper(100, 100) == pytest.approx(1.0)
    assert wilson_upper(0, 0) == 1.0
