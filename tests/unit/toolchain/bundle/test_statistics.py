"""Conformal thresholds hold what they promise, histograms count what they are given."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.inference.conformal import lac, raps, threshold_of
from edge_agent.processing.activations import softmax
from edge_compression.bundle import conformal, histograms
from edge_compression.bundle.answer_statistics import calibrating, statistics
from edge_contracts.manifest import Input, SampleMapping
from edge_contracts.reference import check_answers, check_histogram, check_inputs, check_threshold

SHA = "a" * 64


def task(count: int, seed: int, classes: int = 6) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Logits that are as unsure as they should be: classes are drawn from their own probabilities."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, (count, classes))
    drawn = np.array([generator.choice(classes, p=row) for row in softmax(logits)])
    return logits, drawn


def test_a_threshold_is_the_right_order_statistic() -> None:
    scores = np.arange(1.0, 20.0)  # nineteen
    assert threshold_of(scores, 0.1) == 18.0
    assert threshold_of(scores, 0.05) == 19.0
    assert threshold_of(scores[:8], 0.1) is None


def test_the_scores_are_those_of_the_papers() -> None:
    p = np.array([[0.5, 0.3, 0.15, 0.05]])
    assert lac(p) == pytest.approx(np.array([[0.5, 0.7, 0.85, 0.95]]))
    # ranks 1 and 2 are free, 3 and 4 pay the penalty once and twice
    scores = raps(p[:, ::-1], penalty=conformal.PENALTY, free_ranks=conformal.FREE_RANKS)
    assert scores == pytest.approx(np.array([[1.02, 0.96, 0.8, 0.5]]))


def test_sets_cover_what_they_promise_over_many_draws() -> None:
    covered: dict[tuple[str, float], list[float]] = {}
    for seed in range(30):
        logits, y = task(400, seed)
        found = statistics(logits, y, "logits", calibrate=calibrating(400, slice(0, 0)), model_sha256=SHA)
        for one in found.conformal:
            assert one.coverage is not None
            covered.setdefault((one.score, one.alpha), []).append(one.coverage)
            check_threshold(one, SHA, "t")
    assert set(covered) == {("lac", 0.1), ("lac", 0.05), ("raps", 0.1), ("raps", 0.05)}
    for (_, alpha), shares in covered.items():
        assert np.mean(shares) == pytest.approx(1.0 - alpha, abs=0.02)


def test_checking_samples_have_no_part_in_the_threshold() -> None:
    logits, y = task(200, 1)
    marks = calibrating(200, slice(120, 200))
    assert marks[120:].all()
    assert not marks[:120].any()
    spoiled = logits.copy()
    spoiled[:120] = spoiled[:120, ::-1]
    clean = statistics(logits, y, "logits", calibrate=marks, model_sha256=SHA).conformal
    other = statistics(spoiled, y, "logits", calibrate=marks, model_sha256=SHA).conformal
    assert [one.tau for one in clean] == [one.tau for one in other]
    assert all(one.samples == 80 and one.checked == 120 for one in clean)
    assert sum(one.coverage or 0 for one in other) < sum(one.coverage or 0 for one in clean)


def test_intervals_of_values_cover_too() -> None:
    generator = np.random.default_rng(0)
    y = generator.normal(0, 1, 600)
    answers = (y + generator.normal(0, 0.2, 600))[:, None].astype(np.float32)
    found = statistics(answers, y, "values", calibrate=calibrating(600, slice(0, 0)), model_sha256=SHA)
    tenth = next(one for one in found.conformal if one.alpha == 0.1)
    assert tenth.score == "absolute_residual"
    assert tenth.tau == pytest.approx(1.645 * 0.2, rel=0.15)
    assert tenth.set_size == pytest.approx(2 * tenth.tau)
    assert found.reference is not None
    assert found.reference.value is not None


def test_too_few_samples_make_no_threshold() -> None:
    logits, y = task(10, 0)
    assert statistics(logits, y, "logits", calibrate=calibrating(10, slice(0, 0)), model_sha256=SHA).conformal == ()


def test_a_histogram_has_its_share_in_every_bin_and_counts_all() -> None:
    values = np.random.default_rng(0).normal(0, 1, 1000)
    found = histograms.histogram(values)
    assert found is not None
    assert set(found.counts) == {100}
    check_histogram(found, 1000, "h")
    assert found.counts[0] == int((values < found.edges[0]).sum())


def test_values_that_repeat_make_fewer_bins_and_a_constant_none() -> None:
    found = histograms.histogram(np.array([0.0] * 80 + [1.0] * 10 + [2.0] * 10))
    assert found is not None
    check_histogram(found, 100, "h")
    assert found.counts[0] == 80
    assert histograms.histogram(np.full(9, 3.5)) is None


def test_inputs_are_counted_as_the_model_is_fed_them() -> None:
    tensor = Input(
        name="x", dtype="float32", shape=(-1, 4), sample=SampleMapping(dtype="uint8", offset=10.0, scale=0.5)
    )
    x = np.random.default_rng(0).integers(0, 255, (300, 4), dtype=np.uint8)
    found = histograms.inputs(x, tensor)
    check_inputs(found, {"x"}, "r")
    assert [one.statistic for one in found.features] == ["mean", "std", "minimum", "maximum", *["element"] * 4]
    lowest = found.features[4].histogram
    assert lowest.edges[0] == pytest.approx(np.quantile((x[:, 0] - 10.0) * 0.5, 0.1))


def test_answers_by_class_add_up() -> None:
    logits, y = task(250, 3)
    found = statistics(logits, y, "logits", calibrate=calibrating(250, slice(0, 0)), model_sha256=SHA).reference
    assert found is not None
    check_answers(found, SHA, "r")
    assert found.classes == tuple(np.bincount(logits.argmax(axis=1), minlength=6))
