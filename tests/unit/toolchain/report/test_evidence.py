"""What a loss consists of: samples, groups, confusion, boxes; and how a sample is shown."""

from __future__ import annotations

import base64
import struct

import numpy as np
import pytest

from edge_bench.judged import JudgedAnswer
from edge_bench.metrics.boxes import Boxes
from edge_bench.metrics.registry import METRICS, Parameters
from edge_bench.metrics.table import mean_of
from edge_bench.metrics.values import rmse
from edge_compression.report.box_evidence import compare_boxes, intersection_over_union, matches
from edge_compression.report.evidence import confusion, each, named_classes
from edge_compression.report.sample_pictures import view


def judged(metric: str, **more: object) -> JudgedAnswer:
    parameters = Parameters(**more)  # type: ignore[arg-type]
    return JudgedAnswer(name="y", metric=METRICS[metric], truth=None, parameters=parameters, named=True)


def found(*rows: tuple[float, float, float, float, int, float]) -> Boxes:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Boxes(boxes=table[:, :4], classes=table[:, 4].astype(np.int64), scores=table[:, 5])


TRUE = Boxes(boxes=np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]]), classes=np.array([1, 2]))


def test_overlap_is_shared_area_over_all_area() -> None:
    made = intersection_over_union(np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 15, 10], [50, 50, 60, 60]]))
    assert made[0] == pytest.approx([1 / 3, 0.0])


def test_a_true_box_is_found_once_by_the_surest_of_its_class() -> None:
    twice = found((0, 0, 10, 10, 1, 0.6), (0, 0, 10, 9, 1, 0.9), (20, 20, 30, 30, 1, 0.8))
    assert matches(twice, TRUE).tolist() == [-1, 0, -1]


def test_boxes_before_and_after_are_counted_at_the_threshold_and_drawn() -> None:
    before = [found((0, 0, 10, 10, 1, 0.9), (20, 20, 30, 30, 2, 0.8)), found()]
    after = [found((0, 0, 10, 10, 1, 0.9), (20, 20, 30, 30, 2, 0.4), (40, 40, 50, 50, 2, 0.7)), found()]
    empty = Boxes(boxes=np.empty((0, 4)), classes=np.empty(0, np.int64))
    made = compare_boxes(before, after, [TRUE, empty], 0.5)
    first = made.images[0]
    assert (first.true, first.before_found, first.before_false, first.after_found, first.after_false) == (2, 2, 0, 1, 1)
    assert not first.same
    assert made.images[1].same
    assert [one.kind for one in first.drawn] == ["true", "true", "before", "before", "after", "after"]
    assert made.curve.at_before == (1.0, 1.0)
    assert made.curve.at_after == (0.5, 0.5)
    assert made.curve.after[-1] == (1.0, pytest.approx(2 / 3, abs=1e-3))


def test_no_box_anywhere_is_a_curve_without_points() -> None:
    made = compare_boxes([found()], [found()], [Boxes(boxes=np.empty((0, 4)), classes=np.empty(0))], None)
    assert made.curve.before == ()
    assert made.images[0].same


def test_confusion_counts_before_and_after_and_lists_pairs_of_many_classes() -> None:
    truth, before, after = np.array([0, 1, 1]), np.array([0, 1, 1]), np.array([0, 1, 0])
    few = confusion((before, after, truth), ["no"])
    assert few is not None
    assert few.labels == ("no", "class 1")
    assert few.after == ((1, 0), (1, 1))
    many = confusion((before + 50, after + 50, truth + 50), [])
    assert many is not None
    assert set(many.pairs) == {("class 51", "class 51", 2, 1), ("class 51", "class 50", 0, 1)}


def test_classes_are_read_as_the_metric_reads_them() -> None:
    pixels = np.zeros((2, 3, 4, 4))
    pixels[:, 2] = 1.0
    made = named_classes(judged("miou", axis=1), pixels, pixels, np.zeros((2, 4, 4), np.int64))
    assert made is not None
    assert made[0].shape == (2, 4, 4)
    assert (made[0] == 2).all()
    scores, right = np.array([0.2, 0.6, 0.7]), np.array([0, 0, 1])
    made = named_classes(judged("accuracy_at", threshold=0.65), scores, scores, right)
    assert made is not None
    assert made[0].tolist() == [0, 0, 1]
    assert named_classes(judged("mae"), scores, scores, scores) is None


def test_a_metric_of_each_sample_alone_is_asked_where_it_is_no_mean() -> None:
    answers, truth = np.array([[1.0], [4.0], [0.0]]), np.zeros((3, 1))
    assert each(rmse(answers, truth)).tolist() == pytest.approx([1.0, 4.0, 0.0])
    assert each(mean_of(np.array([0.5, 1.5]))).tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [
        ((49, 10, 1), "int8", "image"),
        ((1, 96, 96), "uint8", "image"),
        ((3, 40, 60), "float32", "image"),
        ((400, 300, 3), "uint8", "image"),
        ((6, 128), "float32", "signals"),
        ((8192,), "int16", "signals"),
        ((30,), "float32", "numbers"),
        ((), "float32", "numbers"),
        ((2, 3, 4, 5), "float32", "numbers"),
    ],
)
def test_samples_are_shown_as_what_they_are(shape: tuple[int, ...], dtype: str, kind: str) -> None:
    generator = np.random.default_rng(0)
    made = view((generator.random(shape) * 100).astype(dtype))
    assert made.kind == kind
    assert made.text
    if kind == "image":
        data = base64.b64decode(made.png)
        assert data.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", data[16:24])
        assert max(width, height) <= 96
    if kind == "signals":
        assert all(len(line.split()) <= 300 for line in made.lines)


def test_a_peak_of_a_long_sound_is_drawn_and_what_is_no_number_harms_nothing() -> None:
    sound = np.zeros(16000, np.float32)
    sound[7777] = 1.0
    heights = [float(point.split(",")[1]) for point in view(sound).lines[0].split()]
    assert min(heights) == pytest.approx(1.0)
    sound[5] = np.nan
    sound[6] = np.inf
    assert view(sound).kind == "signals"
    assert view(np.array(["text"], object)).kind == "numbers"
    assert view(np.zeros((5, 512), np.int16), whole=True).kind == "signals"
