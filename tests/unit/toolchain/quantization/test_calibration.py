"""Streamed calibration against numpy over the whole set, and its bound on memory."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edge_compression.pass_api import PassError
from edge_compression.quantization.calibration import BINS, choose, collect, entropy_threshold


def stream(values: np.ndarray[Any, Any]) -> Any:
    def samples() -> Iterator[dict[str, Any]]:
        for row in values:
            yield {"t": row}

    return samples


def test_extremes_and_counts_are_those_of_the_whole_set() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, (50, 40)).astype(np.float32)
    found = collect(stream(values), histograms=True)["t"]
    assert (found.low, found.high) == (pytest.approx(values.min()), pytest.approx(values.max()))
    assert found.counts is not None
    whole = np.histogram(values, bins=BINS, range=(-found.magnitude, found.magnitude))[0]
    np.testing.assert_array_equal(found.counts, whole)


def test_the_percentile_is_numpys_within_a_bin() -> None:
    values = np.random.default_rng(1).standard_normal((100, 100))
    found = collect(stream(values), histograms=True)["t"]
    low, high = choose(found, "percentile", percentile=99.0)
    width = 2 * found.magnitude / BINS
    assert low == pytest.approx(np.quantile(values, 0.005), abs=2 * width)
    assert high == pytest.approx(np.quantile(values, 0.995), abs=2 * width)


def test_all_of_the_values_is_the_range_of_the_extremes() -> None:
    values = np.random.default_rng(2).standard_normal((10, 10))
    found = collect(stream(values), histograms=True)["t"]
    assert choose(found, "percentile", percentile=100.0) == pytest.approx((values.min(), values.max()))
    assert choose(found, "minmax", percentile=99.0) == (found.low, found.high)


def test_entropy_clips_a_lonely_outlier_and_keeps_an_even_spread() -> None:
    magnitudes = np.abs(np.random.default_rng(0).normal(0.0, 60.0, 20_000))
    lonely = np.histogram(magnitudes, bins=1024, range=(0, 1024))[0]
    lonely[-1] = 1
    assert 128 <= entropy_threshold(lonely) <= 300
    assert entropy_threshold(np.full(1024, 50, dtype=np.int64)) >= 1000


def test_the_zeros_of_a_relu_do_not_hide_what_clipping_costs() -> None:
    counts = np.linspace(2000, 10, 1024).astype(np.int64)
    spiked = counts.copy()
    spiked[0] = 10_000_000
    assert entropy_threshold(spiked) == entropy_threshold(counts)


@pytest.mark.parametrize("calibrator", ["minmax", "average", "percentile", "entropy", "mse"])
def test_a_tensor_that_is_always_zero_has_the_range_zero(calibrator: Any) -> None:
    found = collect(stream(np.zeros((4, 8))), histograms=True)["t"]
    assert choose(found, calibrator, percentile=99.9) == (0.0, 0.0)


def test_a_sample_that_is_not_a_number_is_named_by_its_tensor() -> None:
    with pytest.raises(PassError, match="tensor t"):
        collect(stream(np.array([[1.0, np.nan]])), histograms=False)


def test_no_sample_is_an_error() -> None:
    with pytest.raises(PassError, match="calib_x"):
        collect(stream(np.empty((0, 3))), histograms=False)


def test_memory_does_not_grow_with_the_number_of_samples() -> None:
    def samples() -> Iterator[dict[str, Any]]:
        generator = np.random.default_rng(0)
        for _ in range(50):
            yield {f"t{index}": generator.standard_normal(2000) for index in range(12)}

    tracemalloc.start()
    collect(samples, histograms=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All samples together are 9.6 MB; one is 0.2 MB and so are the histograms.
    assert peak < 2_000_000


def test_the_moving_average_forgets_a_lonely_outlier_and_follows_the_samples() -> None:
    values = np.tile(np.array([-1.0, 3.0]), (200, 1))
    values[20] = [-50.0, 90.0]
    found = collect(stream(values), histograms=False)["t"]
    assert (found.low, found.high) == (-50.0, 90.0)
    assert choose(found, "average", percentile=99.9) == pytest.approx((-1.0, 3.0), abs=0.01)


def rounding_error(values: np.ndarray[Any, Any], low: float, high: float) -> float:
    step = (high - low) / 255
    snapped = np.clip(np.rint(values / step), np.rint(low / step), np.rint(high / step)) * step
    return float(np.mean((snapped - values) ** 2))


def test_the_least_squares_range_is_the_best_of_all_clipped_ranges_on_the_values_themselves() -> None:
    values = np.random.default_rng(3).laplace(0.0, 1.0, (50, 400))
    found = collect(stream(values), histograms=True)["t"]
    low, high = choose(found, "mse", percentile=99.9)
    assert found.low < low < high < found.high
    thresholds = np.linspace(0.2, 1.0, 400) * found.magnitude
    best = min(rounding_error(values, max(found.low, -t), min(found.high, t)) for t in thresholds)
    assert rounding_error(values, low, high) < 1.03 * best


def test_least_squares_keep_an_even_spread_whole() -> None:
    values = np.random.default_rng(4).uniform(0.0, 5.0, (40, 500))
    found = collect(stream(values), histograms=True)["t"]
    assert choose(found, "mse", percentile=99.9) == pytest.approx((0.0, 5.0), abs=0.05)
