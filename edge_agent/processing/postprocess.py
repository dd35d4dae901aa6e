"""Carrying out the steps behind a model: probabilities, best classes and their names, detections, text, decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import EngineError
from edge_agent.processing.activations import softmax
from edge_agent.processing.boxes import corners, suppress
from edge_agent.processing.preprocess import Placement, placement
from edge_contracts.answering import AnswerStep, Ctc, Labels, Nms, Over, Part, Sigmoid, Softmax, Swap, TopK
from edge_contracts.manifest import Input, ScoreMap

Array = NDArray[Any]
Arrays = dict[str, Array]


class Declared(Protocol):
    """What is known of a model whose answers are finished: a manifest, or a task that becomes one."""

    @property
    def inputs(self) -> Sequence[Input]: ...

    @property
    def labels(self) -> Sequence[str]: ...

    @property
    def answer(self) -> Sequence[AnswerStep]: ...


class Postprocessor:
    """Adds to a model's answers what its manifest declares; `score_maps` are the variant's."""

    def __init__(self, manifest: Declared, score_maps: Sequence[ScoreMap] = ()) -> None:
        self._inputs = {tensor.name: tensor for tensor in manifest.inputs}
        self._labels = np.array([*manifest.labels, ""], dtype=np.str_)
        self._maps = {one.of: one for one in score_maps}
        self._acts: list[Callable[[Arrays, Mapping[str, Array]], Arrays]] = [
            self._bound(step) for step in manifest.answer
        ]

    def finish(self, outputs: Mapping[str, Array], tensors: Mapping[str, Array]) -> Arrays:
        """Return the outputs with what the steps add. `tensors` is the request they answer.

        Raises EngineError for outputs whose shapes are not what the manifest says of them.
        """
        known = dict(outputs)
        try:
            for act in self._acts:
                known |= act(known, tensors)
        except (ValueError, IndexError, KeyError) as error:
            raise EngineError(
                f"its outputs do not match the postprocessing steps: {error}", subject="answer"
            ) from error
        return known

    def _bound(self, step: Any) -> Callable[[Arrays, Mapping[str, Array]], Arrays]:
        if isinstance(step, Labels):
            return lambda known, _: {step.name: self._names(known[step.of])}
        if isinstance(step, Nms):
            return lambda known, tensors: self._detect(step, known, tensors)
        if isinstance(step, Over):
            return lambda known, _: {step.name: (self._scores(step.of, known) >= step.threshold).astype(np.int64)}
        act = _ACTS[type(step)]
        return lambda known, _: act(known[step.of], step)

    def _names(self, classes: Array) -> Array:
        last = len(self._labels) - 1
        return self._labels[np.where((classes >= 0) & (classes < last), classes, last)]

    def _detect(self, step: Nms, known: Arrays, tensors: Mapping[str, Array]) -> Arrays:
        height, width = (1.0, 1.0) if step.image is None else step.image
        boxes: Array = corners(known[step.boxes], step.form) / np.array([width, height] * 2, np.float32)
        scores: Array = self._scores(step.scores, known)
        place = self._placement(step.input or next(iter(self._inputs)), tensors)
        made: Arrays = {
            f"{step.name}_boxes": np.zeros((len(boxes), step.most, 4), np.float32),
            f"{step.name}_scores": np.zeros((len(boxes), step.most), np.float32),
            f"{step.name}_classes": np.full((len(boxes), step.most), -1, np.int64),
            f"{step.name}_count": np.zeros(len(boxes), np.int64),
        }
        for row, (own, likely) in enumerate(zip(boxes, scores, strict=True)):
            box, kind = suppress(own, likely, iou_over=step.iou_over, score_over=step.score_over, most=step.most)
            made[f"{step.name}_boxes"][row, : box.size] = _sent(own[box], place)
            made[f"{step.name}_scores"][row, : box.size] = likely[box, kind]
            made[f"{step.name}_classes"][row, : box.size] = kind
            made[f"{step.name}_count"][row] = box.size
        return made

    def _scores(self, name: str, known: Arrays) -> Array:
        """Return scores in float32, as the original would give them where the variant has a mapping."""
        scores = known[name].astype(np.float32)
        return mapped_scores(scores, self._maps[name]) if name in self._maps else scores

    def _placement(self, name: str, tensors: Mapping[str, Array]) -> Placement:
        """Return where the model's image was in the request's; the same where the request was in the model's dtype."""
        tensor, array = self._inputs[name], tensors.get(name)
        if array is None or array.dtype != tensor.sample.dtype:
            return Placement()
        return placement(array.shape[1:], tensor.sample.steps)


def _sent(boxes: Array, place: Placement) -> Array:
    scale = np.array([place.width, place.height] * 2, np.float32)
    corner = np.array([place.left, place.top] * 2, np.float32)
    return np.asarray(np.clip(boxes * scale + corner, 0.0, 1.0))


def mapped_scores(scores: Array, to: ScoreMap) -> Array:
    """Return scores along the straight lines of a map; beyond its ends the nearest end's difference is added."""
    own, original = np.array(to.own), np.array(to.original)
    wide = scores.astype(np.float64)
    inside = np.interp(wide, own, original)
    beyond = np.where(wide < own[0], wide - own[0], np.where(wide > own[-1], wide - own[-1], 0.0))
    return np.asarray((inside + beyond).astype(np.float32))


def _ctc(array: Array, step: Ctc) -> Arrays:
    alphabet = np.array([*step.charset[: step.blank], "", *step.charset[step.blank :]], dtype=np.str_)
    best = array.argmax(axis=-1)
    first = np.ones(best.shape, np.bool_)
    first[:, 1:] = best[:, 1:] != best[:, :-1]
    return {step.name: np.array(["".join(alphabet[row[new]]) for row, new in zip(best, first, strict=True)], np.str_)}


def _softmax(array: Array, step: Softmax) -> Arrays:
    return {step.name: softmax(array.astype(np.float64)).astype(np.float32)}


def _sigmoid(array: Array, step: Sigmoid) -> Arrays:
    values = array.astype(np.float32)
    small = np.exp(-np.abs(values))  # never overflows
    return {step.name: np.where(values >= 0, 1.0, small) / (1.0 + small)}


def _swap(array: Array, step: Swap) -> Arrays:
    return {step.name: array.transpose(0, *(axis + 1 for axis in step.axes))}


def _part(array: Array, step: Part) -> Arrays:
    return {step.name: array[..., step.start : step.stop]}


def _top_k(array: Array, step: TopK) -> Arrays:
    classes = np.argsort(_descending(array), axis=-1, kind="stable")[..., : step.k].astype(np.int64)
    scores = np.take_along_axis(array, classes, axis=-1)
    return {f"{step.name}_scores": scores, f"{step.name}_classes": classes}


def _descending(array: Array) -> Array:
    return -array.astype(np.int64 if array.dtype.kind in "iub" else array.dtype)


_ACTS: dict[type[Any], Callable[[Array, Any], Arrays]] = {
    Softmax: _softmax,
    Sigmoid: _sigmoid,
    Swap: _swap,
    Part: _part,
    TopK: _top_k,
    Ctc: _ctc,
}
