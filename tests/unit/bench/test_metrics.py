"""Every metric that a task may name, against values worked out by hand or by scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from edge_bench.metrics.boxes import Boxes, as_boxes
from edge_bench.metrics.registry import METRICS, Parameters
from edge_contracts.errors import EdgewrightError

NONE = Parameters()
RNG = np.random.default_rng(3)


def value(metric: str, answers: Any, truth: Any, **parameters: Any) -> float:
    return METRICS[metric].table(answers, truth, Parameters(**parameters)).score


def one_hot(said: list[int], count: int) -> Any:
    return np.eye(count, dtype=np.float32)[said]


# Classes


def test_top1_and_top5_count_the_true_class_among_the_largest() -> None:
    scores = np.array([[9, 8, 7, 6, 5, 4], [0, 1, 2, 3, 4, 5.0]])
    assert value("top1", scores, np.array([0, 0])) == 0.5
    assert value("top5", scores, np.array([4, 0])) == 0.5


def test_of_equal_scores_the_first_class_counts_in_top1_and_in_top5() -> None:
    tie = np.zeros((2, 6))
    assert value("top1", tie, np.array([0, 1])) == 0.5
    assert value("top5", tie, np.array([4, 5])) == 0.5


def test_a_sample_whose_scores_hold_nan_is_wrong_whatever_its_class() -> None:
    scores = np.array([[np.nan, 0.0], [1.0, 0.0]])
    assert value("top1", scores, np.array([0, 0])) == 0.5
    assert value("top5", scores, np.array([0, 0])) == 0.5
    assert value("balanced_accuracy", scores, np.array([0, 0])) == 0.5
    assert value("miou", scores[:, :, None], np.zeros((2, 1), int), axis=1) == 0.5


def test_classes_along_another_axis_are_those_of_the_axis_given() -> None:
    logits = RNG.normal(size=(3, 4, 5, 6))
    truth = logits.argmax(axis=1)
    truth[0, 0, 0] = (truth[0, 0, 0] + 1) % 4
    assert value("top1", logits, truth, axis=1) == pytest.approx(89 / 90)
    assert value("pixel_accuracy", logits, truth, axis=1) == pytest.approx(89 / 90)


@pytest.mark.parametrize("classes", [2, 5])
def test_f1_and_balanced_accuracy_are_scikit_learns(classes: int) -> None:
    scores, truth = RNG.normal(size=(60, classes)), RNG.integers(0, classes, 60)
    said = scores.argmax(axis=1)
    average = "binary" if classes == 2 else "macro"
    assert value("f1", scores, truth) == pytest.approx(sk.f1_score(truth, said, average=average))
    assert value("balanced_accuracy", scores, truth) == pytest.approx(sk.balanced_accuracy_score(truth, said))


def test_a_class_that_no_sample_has_counts_neither_for_nor_against() -> None:
    """Class 2 of three is neither true nor said; class 1 is said once and never true."""
    scores, truth = one_hot([0, 0, 1], 3), np.array([0, 0, 0])
    assert value("balanced_accuracy", scores, truth) == pytest.approx(2 / 3)
    assert value("f1", scores, truth) == pytest.approx((0.8 + 0.0) / 2)


def test_miou_is_the_mean_over_classes_of_all_pixels_together() -> None:
    truth = np.array([[[0, 0], [1, 1]]])
    said = np.array([[[0, 1], [1, 1]]])
    logits = np.moveaxis(np.eye(3)[said], -1, 1)
    assert value("miou", logits, truth, axis=1) == pytest.approx((1 / 2 + 2 / 3) / 2)
    truths, saids = truth.reshape(-1), said.reshape(-1)
    assert value("miou", logits, truth, axis=1) == pytest.approx(sk.jaccard_score(truths, saids, average="macro"))


# Ranking


def test_areas_under_curves_are_scikit_learns_with_ties() -> None:
    scores = RNG.integers(0, 6, 80) / 5.0
    truth = RNG.integers(0, 2, 80)
    assert value("auroc", scores, truth) == pytest.approx(sk.roc_auc_score(truth, scores))
    assert value("average_precision", scores, truth) == pytest.approx(sk.average_precision_score(truth, scores))


def test_weighted_areas_are_scikit_learns_so_that_resamples_are() -> None:
    scores, truth = RNG.integers(0, 9, 50) / 8.0, RNG.integers(0, 2, 50)
    weights = RNG.multinomial(50, np.full(50, 1 / 50), size=4).astype(float)
    for metric, oracle in (("auroc", sk.roc_auc_score), ("average_precision", sk.average_precision_score)):
        found = METRICS[metric].table(scores, truth, NONE).scores(weights)
        assert found == pytest.approx([oracle(truth, scores, sample_weight=row) for row in weights])


def test_of_several_columns_the_area_is_the_mean_over_those_with_both_kinds() -> None:
    scores = RNG.normal(size=(40, 3))
    truth = np.stack([RNG.integers(0, 2, 40), RNG.integers(0, 2, 40), np.zeros(40, int)], axis=1)
    wanted = np.mean([sk.roc_auc_score(truth[:, i], scores[:, i]) for i in range(2)])
    assert value("auroc", scores, truth) == pytest.approx(wanted)


def test_class_numbers_of_more_than_two_columns_are_one_column_a_class() -> None:
    scores, truth = RNG.random((40, 4)), np.arange(40) % 4
    wanted = sk.roc_auc_score(truth, scores / scores.sum(1, keepdims=True), multi_class="ovr", average="macro")
    raw = np.mean([sk.roc_auc_score(truth == i, scores[:, i]) for i in range(4)])
    assert value("auroc", scores, truth) == pytest.approx(raw)
    assert wanted > 0.0


def test_of_two_columns_against_one_truth_the_second_is_the_score() -> None:
    scores, truth = RNG.random(30), RNG.integers(0, 2, 30)
    both = np.stack([1 - scores, scores], axis=1)
    assert value("auroc", both, truth) == pytest.approx(sk.roc_auc_score(truth, scores))
    assert value("accuracy_at", both, truth, threshold=0.3) == np.mean((scores >= 0.3) == truth)


@pytest.mark.parametrize("metric", ["auroc", "average_precision"])
def test_a_truth_of_one_kind_has_no_area(metric: str) -> None:
    with pytest.raises(EdgewrightError, match="samples of both kinds"):
        value(metric, RNG.random(5), np.ones(5, int))


def test_a_score_at_the_threshold_is_over_it() -> None:
    assert value("accuracy_at", np.array([0.5, 0.4999]), np.array([1, 0]), threshold=0.5) == 1.0


def test_sequences_with_an_axis_of_one_are_judged_against_those_without() -> None:
    scores, truth = RNG.random((4, 10, 1)), RNG.integers(0, 2, (4, 10))
    assert value("auroc", scores, truth) == pytest.approx(sk.roc_auc_score(truth.ravel(), scores.ravel()))


# Boxes


def found(*rows: tuple[float, ...]) -> Boxes:
    """Detections: class, score, x1, y1, x2, y2."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Boxes(boxes=table[:, 2:], classes=table[:, 0].astype(np.int64), scores=table[:, 1])


def true(*rows: tuple[float, ...]) -> Boxes:
    table = np.array(rows, np.float64).reshape(-1, 5)
    return Boxes(boxes=table[:, 1:], classes=table[:, 0].astype(np.int64))


SQUARE = (0.0, 0.0, 10.0, 10.0)
AWAY = (50.0, 50.0, 60.0, 60.0)


def test_a_box_found_exactly_is_all_and_one_missed_is_half_of_two() -> None:
    truth = [true((0, *SQUARE)), true((0, *SQUARE))]
    assert value("map50", [found((0, 0.9, *SQUARE))] * 2, truth) == pytest.approx(1.0)
    half = value("map50", [found((0, 0.9, *SQUARE)), found()], truth)
    assert half == pytest.approx(51 / 101), "101 places of recall, those up to 0.5 have precision 1"


def test_a_likelier_wrong_box_costs_precision_and_a_less_likely_one_nothing() -> None:
    truth = [true((0, *SQUARE))]
    assert value("map50", [found((0, 0.9, *AWAY), (0, 0.5, *SQUARE))], truth) == pytest.approx(0.5)
    assert value("map50", [found((0, 0.5, *AWAY), (0, 0.9, *SQUARE))], truth) == pytest.approx(1.0)


def test_a_second_box_about_the_same_thing_and_one_of_another_class_are_wrong() -> None:
    truth = [true((0, *SQUARE))]
    assert value("f1_at", [found((0, 0.9, *SQUARE), (0, 0.8, *SQUARE))], truth, threshold=0.5) == pytest.approx(2 / 3)
    assert value("f1_at", [found((1, 0.9, *SQUARE))], truth, threshold=0.5) == 0.0


def test_map_is_the_mean_over_ten_overlaps() -> None:
    """A box of 10 x 8 in one of 10 x 10 overlaps by 0.8: right at 0.5, 0.55, ... 0.75 and 0.8."""
    truth = [true((0, *SQUARE))]
    answer = [found((0, 0.9, 0.0, 0.0, 10.0, 8.0))]
    assert value("map50", answer, truth) == pytest.approx(1.0)
    assert value("map", answer, truth) == pytest.approx(0.7)


def test_no_detection_at_all_is_a_score_of_nothing() -> None:
    truth = [true((0, *SQUARE)), true()]
    assert value("map50", [found(), found()], truth) == 0.0
    assert value("f1_at", [found(), found()], truth, threshold=0.5) == 0.0


def test_a_class_without_true_boxes_is_not_averaged_over() -> None:
    truth = [true((0, *SQUARE))]
    assert value("map50", [found((0, 0.9, *SQUARE), (3, 0.95, *AWAY))], truth) == pytest.approx(1.0)


def test_a_true_box_of_no_area_is_no_reason_to_divide_by_zero() -> None:
    truth = [true((0, 5.0, 5.0, 5.0, 5.0), (0, *SQUARE))]
    score = value("map50", [found((0, 0.9, *SQUARE))], truth)
    assert score == pytest.approx(51 / 101)


def test_map_of_weighted_images_is_that_of_images_given_as_often() -> None:
    truth = [true((0, *SQUARE)), true((0, *AWAY))]
    answer = [found((0, 0.9, *SQUARE)), found((0, 0.95, *SQUARE))]
    weighted = METRICS["map50"].table(answer, truth, NONE).scores(np.array([[2.0, 1.0]]))[0]
    again = value("map50", [answer[0], answer[0], answer[1]], [truth[0], truth[0], truth[1]])
    assert weighted == pytest.approx(again)


def test_detections_over_the_threshold_only_count_for_f1() -> None:
    truth = [true((0, *SQUARE))]
    answer = [found((0, 0.4, *SQUARE))]
    assert value("f1_at", answer, truth, threshold=0.5) == 0.0
    assert value("f1_at", answer, truth, threshold=0.4) == 1.0


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (np.zeros((2, 5)), r"\[M, 6\]"),
        (np.array([[0, 0, 0, 0, np.nan, 1]]), "NaN"),
        (np.array([[7, 0, 0, 0, 1, 1.0]]), "samples 7 to 7"),
        (np.array([[-1, 0, 0, 0, 1, 1.0]]), "samples -1"),
        (np.array([[0, 0.5, 0, 0, 1, 1.0]]), "whole numbers"),
        (np.array([[0, 0, 10, 10, 5, 5.0]]), "two corners"),
    ],
)
def test_rows_that_are_no_boxes_are_refused(rows: Any, says: str) -> None:
    with pytest.raises(EdgewrightError, match=says):
        as_boxes(rows, 3)


# Numbers, signals, images


def test_errors_are_scikit_learns() -> None:
    truth, answers = RNG.normal(size=(20, 3)) + 5, RNG.normal(size=(20, 3)) + 5
    assert value("mae", answers, truth) == pytest.approx(sk.mean_absolute_error(truth, answers))
    assert value("rmse", answers, truth) == pytest.approx(math.sqrt(sk.mean_squared_error(truth, answers)))
    assert value("mape", answers, truth) == pytest.approx(sk.mean_absolute_percentage_error(truth, answers))


def test_errors_of_answers_with_another_shape_name_both() -> None:
    with pytest.raises(EdgewrightError, match=r"\[164\].*\[20\]"):
        value("mae", np.zeros((4, 164)), np.zeros((4, 20)))


def test_errors_relative_to_a_truth_of_zero_are_refused() -> None:
    with pytest.raises(EdgewrightError, match="holds 0"):
        value("mape", np.ones((2, 1)), np.array([[1.0], [0.0]]))


@pytest.mark.parametrize("metric", ["mae", "rmse", "cosine", "si_sdr", "psnr", "auroc"])
def test_answers_with_nan_have_no_such_metric(metric: str) -> None:
    answers = np.array([[0.5, np.nan], [0.5, 0.5]])
    with pytest.raises(EdgewrightError, match="NaN"):
        value(metric, answers, np.array([[1, 0], [0, 1]]))


def test_si_sdr_does_not_see_a_scale_or_an_offset() -> None:
    signal = np.sin(np.linspace(0, 30, 400))[None]
    noise = np.cos(np.linspace(0, 30, 400))[None]
    noise -= noise.mean()
    noise -= signal * (noise * (signal - signal.mean())).sum() / np.square(signal - signal.mean()).sum()
    said = signal + 0.1 * noise
    wanted = value("si_sdr", said, signal)
    assert wanted == pytest.approx(20.0, abs=0.3)
    assert value("si_sdr", 3 * said + 1, signal) == pytest.approx(wanted)


def test_psnr_of_bytes_has_their_peak_and_an_equal_image_is_bounded() -> None:
    truth = np.zeros((1, 8, 8), np.uint8)
    assert value("psnr", truth + 16, truth) == pytest.approx(20 * math.log10(255 / 16))
    assert value("psnr", truth, truth) == 200.0


def test_ssim_is_1_for_equal_images_of_either_layout_and_falls_with_noise() -> None:
    image = RNG.random((2, 24, 24, 3))
    assert value("ssim", image, image) == pytest.approx(1.0)
    first = np.moveaxis(image, -1, 1)
    noisy = first + RNG.normal(size=first.shape) * 0.1
    assert value("ssim", noisy, first) < 0.98
    assert value("ssim", np.moveaxis(noisy, 1, -1), image) == pytest.approx(value("ssim", noisy, first))


def test_cosine_is_of_each_sample_and_nothing_against_nothing_is_the_same() -> None:
    answers = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    truth = np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert value("cosine", answers, truth) == pytest.approx((1 + 1 + 0 + 0) / 4)


def test_recall_at_asks_the_nearest_others_only() -> None:
    embedding = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9], [1, 1.0]])
    assert value("recall_at", embedding, np.array([0, 0, 1, 1, 2]), k=1) == 1.0
    assert value("recall_at", embedding, np.array([0, 1, 0, 1, 2]), k=1) == 0.0
    with pytest.raises(EdgewrightError, match="appear twice"):
        value("recall_at", embedding, np.arange(5), k=1)


# Text


def test_error_rates_of_text_are_edits_over_the_length_of_all() -> None:
    truth = np.array(["kitten", "ab"])
    assert value("cer", np.array(["sitting", "ab"]), truth) == pytest.approx(3 / 8)
    assert value("wer", np.array(["the cat sat", "x"]), np.array(["the cat sat down", "y"])) == pytest.approx(2 / 5)


def test_what_is_said_where_nothing_is_true_counts_as_edits() -> None:
    assert value("cer", np.array(["ab", "abcd"]), np.array(["", "abcd"])) == pytest.approx(2 / 4)


def test_texts_against_numbers_say_how_text_is_made() -> None:
    with pytest.raises(EdgewrightError, match="compares texts") as refused:
        value("cer", np.zeros((2, 5)), np.array(["a", "b"]))
    assert refused.value.hint is not None
    assert "ctc" in refused.value.hint


# Fidelity


def test_fidelity_is_noise_over_power() -> None:
    original = np.array([[3.0, 4.0], [-3.0, -4.0]])
    assert value("fidelity", original * 1.1, original) == pytest.approx(0.1)
    assert value("fidelity", original, original) == 0.0


def test_an_answer_that_is_infinite_where_the_original_is_not_is_infinitely_far() -> None:
    original = np.array([[1.0, 2.0], [3.0, 4.0]])
    broken = original.copy()
    broken[1, 0] = np.nan
    assert value("fidelity", broken, original) == math.inf
    masked = np.array([[1.0, -np.inf], [2.0, -np.inf]])
    assert value("fidelity", masked, masked) == 0.0


def test_whole_numbers_differ_or_not() -> None:
    assert value("fidelity", np.array([1, 2, 3, 9]), np.array([1, 2, 3, 4])) == 0.25


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_every_metric_is_judged_here(metric: str) -> None:
    text = __import__("pathlib").Path(__file__).read_text()
    assert f'"{metric}"' in text
