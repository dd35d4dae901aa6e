"""Judging answers: drops, agreement, hazards, floors and thresholds."""

import numpy as np
import pytest

from edge_agent.inference.quality_metrics import score
from edge_compression.bundle import sample_sets
from edge_compression.evaluation.paired_statistics import flips, resampled
from edge_compression.evaluation.quality import Exactness, Quality, QualityRequest, compare, compare_exact, refuted

Y = np.repeat(np.arange(4), 50)
SURE = np.eye(4)[Y] * 5.0


def spoiled(count: int) -> np.ndarray:  # type: ignore[type-arg]
    answers = SURE.copy()
    answers[:count] = np.roll(answers[:count], 1, axis=1)
    return answers


def judged(answers: np.ndarray, limit: float = 0.5, metric: str = "top1", confidence: float = 0.75) -> Quality:  # type: ignore[type-arg]
    return compare(QualityRequest(metric=metric, limit=limit, confidence=confidence), answers, SURE, Y)


def test_equal_answers_lose_nothing() -> None:
    found = judged(SURE)
    assert (found.score, found.drop, found.agreement, found.p_value) == (1.0, 0.0, 1.0, 1.0)
    assert not found.undecided


def test_a_drop_is_in_points_with_its_interval_and_its_test() -> None:
    found = judged(spoiled(10))
    assert found.drop == pytest.approx(5.0)
    assert found.drop_interval.low > 1.0
    assert found.drop_interval.high < 10.0
    assert found.agreement == pytest.approx(0.95)
    assert found.p_value == pytest.approx(2 / 2**10)


def test_a_drop_the_samples_cannot_decide_is_called_so() -> None:
    found = judged(spoiled(1), limit=0.6)
    assert found.drop == pytest.approx(0.5)  # within what is allowed, and yet
    assert found.bound > 0.6
    assert found.undecided
    assert not judged(spoiled(1), limit=5.0).undecided
    assert not judged(spoiled(10), limit=0.6).undecided


def test_a_verdict_has_three_words() -> None:
    assert judged(SURE).verdict == "within"
    assert judged(spoiled(1), limit=0.6).verdict == "undecided"
    assert judged(spoiled(10)).verdict == "over"
    assert judged(spoiled(10)).surely_over
    assert not judged(spoiled(2)).surely_over


def test_nothing_seen_lost_is_no_proof_that_nothing_can_be_lost() -> None:
    found = judged(SURE)
    assert found.drop == 0.0
    assert 0.0 < found.bound < found.drop_interval.high
    assert judged(SURE, limit=0.3, confidence=0.75).verdict == "undecided"
    assert judged(SURE, limit=0.5, confidence=0.99).verdict == "undecided"


def test_the_bound_holds_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    held = []
    for _ in range(400):
        flipped, won = generator.random(400) < 0.03, generator.random(400) < 0.02
        gained = flipped.astype(float) - won.astype(float)
        bound = flips(gained)
        assert bound is not None
        held.append(bound(0.75) >= 0.01)
    assert np.mean(held) == pytest.approx(0.75, abs=0.06)


def test_the_bootstrap_bounds_what_is_no_flip() -> None:
    gained = np.random.default_rng(0).normal(0.1, 1.0, 400)
    assert flips(gained) is None
    assert resampled(gained)(0.75) == pytest.approx(gained.mean() + 0.674 / 20, abs=0.02)


def test_samples_kept_back_refute_only_what_they_speak_against() -> None:
    asked = QualityRequest(metric="top1", limit=0.5)
    assert refuted(asked, spoiled(10), SURE, Y)
    assert not refuted(asked, spoiled(1), SURE, Y)


def test_the_worst_slice_is_found() -> None:
    slices = np.where(np.arange(200) < 20, "night", "day")
    found = compare(QualityRequest(metric="top1", limit=0.5), spoiled(10), SURE, Y, slices)
    assert found.worst_slice == "night"
    assert found.worst_slice_drop == pytest.approx(50.0)


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e9])
def test_an_error_is_lost_relative_to_the_original_own_whatever_its_unit(unit: float) -> None:
    y = unit * np.linspace(0, 1, 50)
    found = compare(QualityRequest(metric="mae", limit=0.5), y[:, None] + 0.02 * unit, y[:, None] + 0.01 * unit, y)
    assert found.drop == pytest.approx(100.0)
    assert found.outputs[0].unit == "%"
    assert found.agreement is None
    close = compare(QualityRequest(metric="mae", limit=5.0), y[:, None] + 0.0103 * unit, y[:, None] + 0.01 * unit, y)
    assert close.drop == pytest.approx(3.0)
    assert close.verdict == "within"


def test_a_file_whose_answers_depend_on_the_kernels_is_a_hazard() -> None:
    assert compare_exact("top1", spoiled(100), SURE, Y).hazard is not None
    assert compare_exact("top1", spoiled(4), SURE, Y).hazard is None


def exactness(differing: int, samples: int = 256, largest: float | None = 0.0) -> Exactness:
    return Exactness(
        samples=samples,
        score_optimized=0.9,
        score_exact=0.9,
        differing=differing,
        largest_difference=largest,
        hazard=None,
    )


def test_the_floor_lets_other_kernels_pass_and_no_collapse() -> None:
    floor = sample_sets.score_floor("top1", 0.9, 200, exactness(2))
    assert 0.8 < floor < 0.9
    flips = np.random.default_rng(0).binomial(200, 2 / 256, 2000)
    assert np.mean(0.9 - flips / 200 >= floor) > 0.99
    assert sample_sets.score_floor("top1", 0.9, 200, exactness(30)) < floor


def test_the_floor_of_an_error_lies_below_it() -> None:
    assert sample_sets.score_floor("mae", -0.5, 100, exactness(0)) == pytest.approx(-0.55)


def test_a_model_without_error_may_have_on_a_device_what_other_kernels_add() -> None:
    floor = sample_sets.score_floor("mae", np.float64(-0.0), 100, exactness(0), least=0.02)
    assert floor == pytest.approx(-0.02)
    assert type(floor) is float  # what a manifest holds


def test_the_tolerance_covers_what_was_seen_and_never_everything() -> None:
    assert sample_sets.tolerance(exactness(0), least=1e-3) == 1e-3
    assert sample_sets.tolerance(exactness(0, largest=0.1), least=1e-3) == pytest.approx(0.2)
    assert sample_sets.tolerance(exactness(0, largest=None), least=1e-3) == sample_sets.MAX_TOLERANCE


def test_probes_have_each_class_in_their_share() -> None:
    y = np.r_[np.zeros(900), np.ones(100)].astype(np.int64)
    chosen = sample_sets.stratified(y, 100, by_class=True)
    assert len(set(chosen)) == 100
    assert np.sum(y[chosen] == 1) == 10


@pytest.mark.parametrize("each", [100, 10_000, 640_000])
@pytest.mark.parametrize("variants", [20_000, 400_000, 15_300_000])
def test_sample_sets_are_small_beside_the_variants(each: float, variants: int) -> None:
    """Pictures of 640 kB beside variants of 15.3 MB are at most a third of them, and small samples as many as ever."""
    allowed = sample_sets.allowed_bytes(variants)
    golden = sample_sets.golden_count(1.1 * each, allowed)
    probes = sample_sets.probe_count(each, allowed - golden * 1.1 * each)
    least = 1.1 * each * sample_sets.MIN_GOLDEN + each * sample_sets.MIN_PROBES
    assert golden * 1.1 * each + probes * each <= max(allowed, least)
    assert golden >= sample_sets.MIN_GOLDEN
    assert probes >= sample_sets.MIN_PROBES
    if each == 100:
        assert (golden, probes) == (sample_sets.MAX_GOLDEN, sample_sets.MAX_PROBES)
    if (each, variants) == (640_000, 15_300_000):
        assert golden * 1.1 * each + probes * each < 0.35 * variants


def test_what_a_sample_weighs_is_what_it_weighs_packed() -> None:
    noise = np.random.default_rng(0).standard_normal((6, 1000)).astype(np.float32)
    assert sample_sets.packed_bytes([noise]) == pytest.approx(4000, rel=0.1)
    assert sample_sets.packed_bytes([np.zeros((6, 1000), np.float32), noise[:0]]) < 100


def test_outputs_are_told_apart_by_their_numbers() -> None:
    soft = np.exp(SURE) / np.exp(SURE).sum(axis=1, keepdims=True)
    assert sample_sets.output_kind(SURE, "top1") == "logits"
    assert sample_sets.output_kind(soft, "top1") == "probabilities"
    assert sample_sets.output_kind(SURE, "mae") == "values"


def test_confidence_thresholds_call_the_share_they_say_suspicious() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (4000, 5))
    found = sample_sets.confidence(logits, "logits")
    assert found.energy is not None
    assert found.max_softmax is not None
    energy = -np.log(np.exp(logits).sum(axis=1))
    assert np.mean(energy > found.energy) == pytest.approx(sample_sets.SUSPICIOUS_SHARE, abs=1e-3)
    top = np.exp(logits).max(axis=1) / np.exp(logits).sum(axis=1)
    assert np.mean(top < found.max_softmax) == pytest.approx(sample_sets.SUSPICIOUS_SHARE, abs=1e-3)


def test_the_probe_score_is_the_devices_metric() -> None:
    assert score("top1", [spoiled(20)], Y) == pytest.approx(0.9)
