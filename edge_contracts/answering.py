"""Declared processing of answers: what is made of a model's outputs before they are given to whoever asked.

Each step reads outputs, the model's or those of steps before it, and adds new ones. What detections are made of, and
what is transposed or cut, is large and of no use to most: it is given only to who asks for it by name. Guards, scores
and thresholds are about the model's own outputs.

The arithmetic is in `edge_agent.processing`, the way to the model in `edge_contracts.processing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from edge_contracts import limits
from edge_contracts.codec import StrictRecord
from edge_contracts.errors import ContractError
from edge_contracts.names import Name, Text
from edge_contracts.processing import ANY, Axis, Shape, Side

Few = Annotated[int, Meta(ge=1, le=limits.MAX_DETECTIONS)]
TEXT = "str"
"""The dtype of names of classes; it exists in answers only."""


class Spec(Struct, frozen=True, kw_only=True):
    """What is known of an array before there is one. The first dimension is the batch."""

    dtype: str
    shape: Shape


class Softmax(StrictRecord, frozen=True, kw_only=True, tag_field="step", tag="softmax"):
    """Probabilities of logits along the last axis, in float32."""

    of: Text
    name: Name


class Sigmoid(StrictRecord, frozen=True, kw_only=True, tag_field="step", tag="sigmoid"):
    """1 / (1 + exp(-x)) of each number, in float32."""

    of: Text
    name: Name


class Swap(StrictRecord, frozen=True, kw_only=True, tag_field="step", tag="transpose"):
    """The axes behind the batch in another order: [1, 0] makes [batch, numbers, boxes] one row a box."""

    of: Text
    name: Name
    axes: Annotated[tuple[Axis, ...], Meta(min_length=1, max_length=limits.MAX_RANK - 1)]


class Part(StrictRecord, frozen=True, kw_only=True, tag_field="step", tag="part"):
    """The elements from `start` to before `stop` of the last axis."""

    of: Text
    name: Name
    start: Annotated[int, Meta(ge=0)] = 0
    stop: Annotated[int, Meta(ge=1)]


class TopK(StrictRecord, frozen=True, kw_only=True, tag_field="step", tag="top_k"):
    """The `k` largest along the last axis, largest first, of equal ones the first: `<name>_scores` and
    `<name>_classes` (int64)."""

    of: Text
    name: Name
    k: Few = 5


class Labels(StrictRecord, frozen=True, kw_only=True, tag_field="step", tag="labels"):
    """The manifest's names of classes that are given by number; a number without a name has an empty one."""

    of: Text
    name: Name


class Nms(StrictRecord, frozen=True, kw_only=True, tag_field="step", tag="nms"):
    """The likeliest boxes that are not about the same thing: non-maximum suppression within each class.

    Reads `boxes` [batch, n, 4] and `scores` [batch, n, classes]. `form` says what the four numbers are; they are
    relative to the model's image, or pixels of one of `image` (height, width). Adds, likeliest first and filled up
    with zeros and class -1: `<name>_boxes` [batch, most, 4] as x1, y1, x2, y2 between 0 and 1 of the image that was
    sent, whatever crop and resize made of it, `<name>_scores`, `<name>_classes` (int64) and `<name>_count` [batch].
    `input` names the image among several inputs.
    """

    boxes: Text
    scores: Text
    name: Name
    most: Few = 100
    score_over: Annotated[float, Meta(ge=0.0)] = 0.25
    iou_over: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.45
    form: Literal["xyxy", "yxyx", "cxcywh"] = "xyxy"
    image: tuple[Side, Side] | None = None
    input: Text | None = None


class Ctc(StrictRecord, frozen=True, kw_only=True, tag_field="step", tag="ctc"):
    """Text of a recognizer's classes for each step in time, [batch, time, classes]: the likeliest class of each step,
    repeats merged, blanks dropped (best path; A. Graves et al., ICML 2006). The characters of `charset` are the
    classes in order, without the class `blank`."""

    of: Text
    name: Name
    blank: Annotated[int, Meta(ge=0, le=limits.MAX_CHARSET)] = 0
    charset: Annotated[str, Meta(min_length=1, max_length=limits.MAX_CHARSET)]


class Over(StrictRecord, frozen=True, kw_only=True, tag_field="step", tag="over"):
    """1 where a score is at least `threshold`, else 0 (int64). A variant whose scores lie elsewhere has them mapped to
    the original's first: see `manifest.ScoreMap`."""

    of: Text
    name: Name
    threshold: float


AnswerStep = Softmax | Sigmoid | Swap | Part | TopK | Labels | Nms | Ctc | Over
AnswerSteps = Annotated[tuple[AnswerStep, ...], Meta(max_length=limits.MAX_STEPS)]


def reads(step: AnswerStep) -> tuple[str, ...]:
    """Return the outputs that a step reads."""
    return (step.boxes, step.scores) if isinstance(step, Nms) else (step.of,)


def outputs_after(outputs: Mapping[str, Spec], steps: Sequence[AnswerStep], what: str = "answer") -> dict[str, Spec]:
    """Return what is known of the model's outputs and of all that the steps add, by name.

    Raises ContractError naming the step that reads what is not there, does not fit it, or adds a name twice.
    """
    known = dict(outputs)
    for index, step in enumerate(steps):
        subject = f"{what}[{index}]"
        for name in reads(step):
            if name not in known:
                raise ContractError(f"no output {name[:80]!r} before this step", subject=subject)
            if known[name].dtype == TEXT:
                raise ContractError(f"{name[:80]!r} holds no numbers", subject=subject)
        for name, spec in _RULES[type(step)](step, known, subject).items():
            if name in known:
                raise ContractError(f"{name[:80]!r} is there already", subject=subject)
            known[name] = spec
    if len(known) > limits.MAX_TENSORS:
        raise ContractError(f"more than {limits.MAX_TENSORS} outputs", subject=what)
    return known


def given(names: Sequence[str], steps: Sequence[AnswerStep]) -> tuple[str, ...]:
    """Return which of all outputs are given unasked: all but what detecting, transposing and cutting read."""
    taken = {name for step in steps if isinstance(step, Nms | Swap | Part | Ctc) for name in reads(step)}
    return tuple(name for name in names if name not in taken)


def _each(step: Softmax | Sigmoid, known: Mapping[str, Spec], what: str) -> dict[str, Spec]:
    return {step.name: Spec(dtype="float32", shape=_ranked(known[step.of], 2, what))}


def _swap(step: Swap, known: Mapping[str, Spec], what: str) -> dict[str, Spec]:
    spec = known[step.of]
    inner = spec.shape[1:]
    if sorted(step.axes) != list(range(len(inner))):
        text = f"{list(step.axes)} are not the axes behind the batch of {list(spec.shape)}"
        raise ContractError(text, subject=what)
    return {step.name: Spec(dtype=spec.dtype, shape=(*spec.shape[:1], *(inner[axis] for axis in step.axes)))}


def _part(step: Part, known: Mapping[str, Spec], what: str) -> dict[str, Spec]:
    spec = known[step.of]
    *rows, last = _ranked(spec, 2, what)
    if not step.start < step.stop or (last != ANY and step.stop > last):
        raise ContractError(f"{step.start} to {step.stop} of {last}", subject=what)
    return {step.name: Spec(dtype=spec.dtype, shape=(*rows, step.stop - step.start))}


def _top_k(step: TopK, known: Mapping[str, Spec], what: str) -> dict[str, Spec]:
    spec = known[step.of]
    *rows, last = _ranked(spec, 2, what)
    if last == ANY or step.k > last:
        raise ContractError(f"the best {step.k} of {last}", subject=what)
    return {
        f"{step.name}_scores": Spec(dtype=spec.dtype, shape=(*rows, step.k)),
        f"{step.name}_classes": Spec(dtype="int64", shape=(*rows, step.k)),
    }


def _labels(step: Labels, known: Mapping[str, Spec], what: str) -> dict[str, Spec]:
    spec = known[step.of]
    if not spec.dtype.startswith(("int", "uint")):
        raise ContractError(f"class numbers are integers, not {spec.dtype}", subject=what)
    return {step.name: Spec(dtype=TEXT, shape=spec.shape)}


def _nms(step: Nms, known: Mapping[str, Spec], what: str) -> dict[str, Spec]:
    boxes, scores = known[step.boxes].shape, known[step.scores].shape
    if len(boxes) != 3 or boxes[2] != 4:
        raise ContractError(f"boxes are [batch, n, 4], not {list(boxes)}", subject=what)
    if len(scores) != 3 or (scores[1] != boxes[1] and ANY not in (scores[1], boxes[1])):
        raise ContractError(f"scores are [batch, n, classes] as many as boxes, not {list(scores)}", subject=what)
    batch = boxes[0]
    return {
        f"{step.name}_boxes": Spec(dtype="float32", shape=(batch, step.most, 4)),
        f"{step.name}_scores": Spec(dtype="float32", shape=(batch, step.most)),
        f"{step.name}_classes": Spec(dtype="int64", shape=(batch, step.most)),
        f"{step.name}_count": Spec(dtype="int64", shape=(batch,)),
    }


def _ctc(step: Ctc, known: Mapping[str, Spec], what: str) -> dict[str, Spec]:
    shape = known[step.of].shape
    classes = len(step.charset) + 1
    if len(shape) != 3 or shape[2] not in (ANY, classes):
        text = f"takes [batch, time, {classes}] with this charset and a blank, not {list(shape)}"
        raise ContractError(text, subject=what)
    if step.blank >= classes:
        raise ContractError(f"the blank is class {step.blank} of {classes}", subject=what)
    return {step.name: Spec(dtype=TEXT, shape=shape[:1])}


def _over(step: Over, known: Mapping[str, Spec], what: str) -> dict[str, Spec]:
    if not math.isfinite(step.threshold):
        raise ContractError("the threshold is no number", subject=what)
    return {step.name: Spec(dtype="int64", shape=known[step.of].shape)}


def _ranked(spec: Spec, least: int, what: str) -> Shape:
    if len(spec.shape) < least:
        raise ContractError(f"takes at least {least} dimensions, not {list(spec.shape)}", subject=what)
    return spec.shape


_RULES: dict[type[Any], Callable[[Any, Mapping[str, Spec], str], dict[str, Spec]]] = {
    Softmax: _each,
    Sigmoid: _each,
    Swap: _swap,
    Part: _part,
    TopK: _top_k,
    Labels: _labels,
    Nms: _nms,
    Ctc: _ctc,
    Over: _over,
}
