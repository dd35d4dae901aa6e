"""The steps behind a model: oracles, detections in the coordinates of the sent image, what is given and what is not."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from support.makers.contract_examples import MANIFEST

from edge_agent.errors import EngineError
from edge_agent.processing.boxes import corners, overlap, suppress
from edge_agent.processing.postprocess import Postprocessor, mapped_scores
from edge_contracts.answering import AnswerStep, Ctc, Labels, Nms, Over, Part, Sigmoid, Softmax, Swap, TopK
from edge_contracts.errors import ContractError
from edge_contracts.manifest import Input, Manifest, Output, SampleMapping, ScoreMap, check_manifest, schema_for
from edge_contracts.processing import Resize

Array = np.ndarray[Any, Any]


def manifest(outputs: dict[str, tuple[int, ...]], *steps: AnswerStep, **fields: Any) -> Manifest:
    """Return a manifest of float32 outputs with steps behind them."""
    made = tuple(Output(name=name, dtype="float32", shape=shape) for name, shape in outputs.items())
    plain = Input(name="x", dtype="float32", shape=(-1, 4), sample=SampleMapping(dtype="float32"))
    changes: dict[str, Any] = {
        "outputs": made,
        "answer": steps,
        "inputs": (plain,),
        "reference": None,
        "labels": ("cat", "dog"),
        "variants": tuple(msgspec.structs.replace(one, score_maps=(), floors=()) for one in MANIFEST.variants),
        **fields,
    }
    changes["schema"] = schema_for(changes["inputs"], steps)
    return msgspec.structs.replace(MANIFEST, **changes)


def finish(known: Manifest, **outputs: Array) -> dict[str, Any]:
    """Return what becomes of outputs."""
    check_manifest(known)
    return Postprocessor(known).finish(outputs, {})


def test_softmax_and_sigmoid_are_their_definitions_and_never_overflow() -> None:
    rows = np.array([[1.0, 2.0, 3.0], [1000.0, -1000.0, 0.0]], np.float32)
    made = finish(manifest({"y": (-1, 3)}, Softmax(of="y", name="p"), Sigmoid(of="y", name="s")), y=rows)
    expected = np.exp([1.0, 2.0, 3.0]) / np.exp([1.0, 2.0, 3.0]).sum()
    assert np.allclose(made["p"][0], expected)
    assert made["p"][1].tolist() == [1.0, 0.0, 0.0]
    assert np.allclose(made["s"][0], 1 / (1 + np.exp([-1.0, -2.0, -3.0])))
    assert made["s"][1].tolist() == [1.0, 0.0, 0.5]
    assert made["y"] is rows


def test_the_best_classes_and_their_names() -> None:
    steps = (TopK(of="y", name="best", k=3), Labels(of="best_classes", name="names"))
    made = finish(manifest({"y": (-1, 4)}, *steps), y=np.array([[0.1, 0.9, 0.9, 0.5]], np.float32))
    assert made["best_classes"].tolist() == [[1, 2, 3]]  # of equal ones the first
    assert made["best_classes"].dtype == np.int64
    assert np.allclose(made["best_scores"], [[0.9, 0.9, 0.5]])
    assert made["names"].tolist() == [["dog", "", ""]]


def test_unsigned_scores_are_ordered_too() -> None:
    known = manifest({"y": (-1, 3)}, TopK(of="y", name="best", k=2))
    made = Postprocessor(known).finish({"y": np.array([[3, 250, 0]], np.uint8)}, {})
    assert made["best_classes"].tolist() == [[1, 0]]


def detections(seed: int, count: int = 60, classes: int = 3) -> tuple[Array, Array]:
    """Return boxes that often overlap, as x1, y1, x2, y2, and scores."""
    rng = np.random.default_rng(seed)
    centers, sizes = rng.uniform(0.2, 0.8, (count, 2)), rng.uniform(0.05, 0.3, (count, 2))
    boxes = np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1).astype(np.float32)
    return boxes, rng.uniform(0, 1, (count, classes)).astype(np.float32)


@pytest.mark.parametrize("seed", range(6))
def test_suppression_keeps_what_that_of_onnx_keeps(seed: int) -> None:
    boxes, scores = detections(seed)
    names = ["boxes", "scores", "most", "iou", "least"]
    kinds = [TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT]
    shapes: list[list[Any]] = [[1, None, 4], [1, None, None], [1], [1], [1]]
    graph = helper.make_graph(
        [helper.make_node("NonMaxSuppression", names, ["kept"], center_point_box=0)],
        "g",
        [helper.make_tensor_value_info(*one) for one in zip(names, kinds, shapes, strict=True)],
        [helper.make_tensor_value_info("kept", TensorProto.INT64, [None, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    feeds = {
        "boxes": boxes[None],
        "scores": scores.T[None],
        "most": np.array([1000], np.int64),
        "iou": np.array([0.45], np.float32),
        "least": np.array([0.3], np.float32),
    }
    theirs = ReferenceEvaluator(model).run(None, feeds)[0]
    box, kind = suppress(boxes, scores, iou_over=0.45, score_over=0.3, most=1000)
    assert {(int(k), int(b)) for k, b in zip(kind, box, strict=True)} == {(int(k), int(b)) for _, k, b in theirs}
    likely = scores[box, kind]
    assert np.all(likely[:-1] >= likely[1:])


def test_overlap_and_forms_by_hand() -> None:
    one, others = np.array([0, 0, 2, 2], np.float32), np.array([[1, 1, 3, 3], [5, 5, 6, 6], [1, 1, 1, 1]], np.float32)
    assert overlap(one, others).tolist() == pytest.approx([1 / 7, 0.0, 0.0])
    assert corners(np.array([[1, 2, 3, 4]]), "yxyx").tolist() == [[2, 1, 4, 3]]
    assert corners(np.array([[5, 6, 2, 4]]), "cxcywh").tolist() == [[4, 4, 6, 8]]


def detector(**nms: Any) -> Manifest:
    """Return a detector of an image of any size, letterboxed to 100 x 100; it answers [batch, 5 + 1, boxes]."""
    sample = SampleMapping(
        dtype="uint8", shape=(-1, -1, -1, 3), steps=(Resize(height=100, width=100, fit="letterbox"),)
    )
    steps: tuple[AnswerStep, ...] = (
        Swap(of="raw", name="rows", axes=(1, 0)),
        Part(of="rows", name="boxes", stop=4),
        Part(of="rows", name="scores", start=4, stop=6),
        Nms(
            **{"boxes": "boxes", "scores": "scores", "name": "found", "most": 3, "form": "cxcywh", "image": (100, 100)}
            | nms
        ),
    )
    image = Input(name="image", dtype="float32", shape=(-1, 100, 100, 3), sample=sample)
    return manifest({"raw": (-1, 6, -1)}, *steps, inputs=(image,))


RAW = np.array([[[50, 50, 20, 10, 0.9, 0.1], [51, 50, 20, 10, 0.8, 0.0], [20, 70, 8, 8, 0.0, 0.6]]], np.float32)


def test_detections_are_in_the_image_that_was_sent_whatever_the_letterbox_did() -> None:
    known = detector()
    check_manifest(known)
    sent = np.zeros((1, 50, 100, 3), np.uint8)  # half as high as wide: 25 rows of border above and below
    made = Postprocessor(known).finish({"raw": RAW.transpose(0, 2, 1)}, {"image": sent})
    assert made["found_count"].tolist() == [2]
    assert made["found_classes"].tolist() == [[0, 1, -1]]
    assert made["found_scores"][0].tolist() == pytest.approx([0.9, 0.6, 0.0])
    assert made["found_boxes"][0, 0].tolist() == pytest.approx([0.4, 0.4, 0.6, 0.6])
    assert made["found_boxes"][0, 1].tolist() == pytest.approx([0.16, (0.66 - 0.25) * 2, 0.24, (0.74 - 0.25) * 2])
    assert made["found_boxes"][0, 2].tolist() == [0, 0, 0, 0]


def test_who_sends_what_the_model_is_fed_gets_boxes_of_that() -> None:
    made = Postprocessor(detector()).finish(
        {"raw": RAW.transpose(0, 2, 1)}, {"image": np.zeros((1, 100, 100, 3), np.float32)}
    )
    assert made["found_boxes"][0, 0].tolist() == pytest.approx([0.4, 0.45, 0.6, 0.55])


def test_what_detections_are_made_of_is_given_only_when_asked_for() -> None:
    known = detector()
    assert known.given == ("found_boxes", "found_scores", "found_classes", "found_count")
    assert set(known.answers) - set(known.given) == {"raw", "rows", "boxes", "scores"}
    assert known.answers["found_boxes"].shape == (-1, 3, 4)
    kept = manifest({"y": (-1, 3)}, Softmax(of="y", name="p"))
    assert kept.given == ("y", "p")


@pytest.mark.parametrize(
    "steps",
    [
        (Softmax(of="z", name="p"),),
        (Softmax(of="y", name="y"),),
        (Softmax(of="y", name="p"), Softmax(of="y", name="p")),
        (TopK(of="y", name="best", k=4),),
        (Part(of="y", name="p", start=2, stop=2),),
        (Part(of="y", name="p", stop=4),),
        (Swap(of="y", name="p", axes=(1, 0)),),
        (Labels(of="y", name="names"),),
        (Nms(boxes="y", scores="y", name="found"),),
    ],
)
def test_steps_that_do_not_fit_are_refused_naming_the_step(steps: tuple[AnswerStep, ...]) -> None:
    with pytest.raises(ContractError) as caught:
        check_manifest(manifest({"y": (-1, 3)}, *steps))
    assert str(caught.value.subject).startswith("manifest.answer[")


def test_a_detection_in_an_input_that_is_not_there_is_refused() -> None:
    with pytest.raises(ContractError) as caught:
        check_manifest(detector(input="camera"))
    assert caught.value.subject == "manifest.answer[3].input"


def test_outputs_of_other_shapes_than_declared_are_the_models_fault() -> None:
    known = manifest({"y": (-1, 3)}, TopK(of="y", name="best", k=2))
    with pytest.raises(EngineError):
        Postprocessor(known).finish({"z": np.zeros((1, 3), np.float32)}, {})


def test_numbers_that_are_none_make_no_detection() -> None:
    boxes, scores = detections(1)
    scores[:] = np.nan
    box, _ = suppress(boxes, scores, iou_over=0.5, score_over=0.1, most=10)
    assert box.size == 0


def test_text_is_the_likeliest_class_of_each_step_without_repeats_and_blanks() -> None:
    best = [[0, 1, 1, 0, 1, 2], [3, 3, 0, 0, 3, 0]]
    rows = np.eye(4, dtype=np.float32)[best]
    made = finish(manifest({"y": (-1, 6, 4)}, Ctc(of="y", name="text", charset="abc")), y=rows)
    assert made["text"].tolist() == ["aab", "cc"]
    last = finish(manifest({"y": (-1, 6, 4)}, Ctc(of="y", name="text", charset="abc", blank=3)), y=rows)
    assert last["text"].tolist() == ["ababc", "aa"]


def test_a_charset_that_does_not_fit_the_classes_is_refused() -> None:
    with pytest.raises(ContractError, match=r"\[batch, time, 3\]"):
        finish(manifest({"y": (-1, 6, 4)}, Ctc(of="y", name="text", charset="ab")))


def test_a_decision_is_made_on_the_scores_as_the_original_gives_them() -> None:
    known = manifest({"y": (-1, 1)}, Over(of="y", name="found", threshold=0.5))
    rows = np.array([[0.2], [0.3], [0.49], [0.5]], np.float32)
    halved = ScoreMap(of="y", own=(0.0, 0.25, 0.5), original=(0.0, 0.5, 1.0))
    assert finish(known, y=rows)["found"].ravel().tolist() == [0, 0, 0, 1]
    made = Postprocessor(known, (halved,)).finish({"y": rows}, {})
    assert made["found"].ravel().tolist() == [0, 1, 1, 1]
    np.testing.assert_array_equal(made["y"], rows)


def test_detections_of_halved_scores_are_found_again_by_the_map() -> None:
    known = manifest({"b": (-1, 2, 4), "s": (-1, 2, 1)}, Nms(boxes="b", scores="s", name="d", score_over=0.5))
    boxes = np.array([[[0, 0, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9]]], np.float32)
    scores = np.array([[[0.35], [0.2]]], np.float32)
    halved = ScoreMap(of="s", own=(0.0, 0.5), original=(0.0, 1.0))
    assert finish(known, b=boxes, s=scores)["d_count"].tolist() == [0]
    made = Postprocessor(known, (halved,)).finish({"b": boxes, "s": scores}, {})
    assert made["d_count"].tolist() == [1]
    assert made["d_scores"][0, 0] == pytest.approx(0.7)


def test_scores_beyond_a_map_keep_their_order() -> None:
    shift = ScoreMap(of="s", own=(0.0, 1.0), original=(0.5, 1.5))
    assert mapped_scores(np.array([-2.0, 0.0, 0.5, 3.0], np.float32), shift).tolist() == [-1.5, 0.5, 1.0, 3.5]
