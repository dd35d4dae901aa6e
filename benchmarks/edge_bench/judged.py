"""From a model's outputs to what a task judges: the answer steps carried out, boxes in the truth's unit, tables of
metrics.

What a loss is worth is decided in `edge_compression.evaluation.quality`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_agent.ports import TensorInfo
from edge_agent.processing.postprocess import Postprocessor
from edge_bench.metrics.boxes import Boxes
from edge_bench.metrics.registry import FIDELITY, Metric, Parameters
from edge_bench.metrics.table import Array, Table
from edge_bench.task import Task
from edge_bench.task_samples import JudgedOutput, Truth, taken
from edge_contracts.answering import AnswerStep, Nms, Over, reads
from edge_contracts.errors import EdgewrightError, OperatorError
from edge_contracts.manifest import Input, SampleMapping, ScoreMap, scores_of

Finished = Mapping[str, Any]
"""What is judged by name: arrays [N, ...], or lists of `Boxes`."""

PIXELS_FROM = 1.5
"""Coordinates beyond this are pixels: boxes relative to their image end at 1."""


@dataclass(frozen=True, kw_only=True)
class _Declared:
    inputs: Sequence[Input]
    labels: Sequence[str]
    answer: Sequence[AnswerStep]


@dataclass(frozen=True, kw_only=True)
class JudgedAnswer:
    """One thing that is judged: the answer `name` by `metric` against `truth`, or against the original's own answers
    where that is None. `named` tells that the task asks for it; other outputs of the model are judged so that none is
    ruined unseen. `others` are those of a model whose first output is judged because the task names none."""

    name: str
    metric: Metric
    truth: Truth | None
    parameters: Parameters
    named: bool
    spec: JudgedOutput | None = None
    others: tuple[str, ...] = ()

    def table(self, answers: Any, truth: Any) -> Table:
        """Return the metric's table. Raises OperatorError naming where the task says so, file and remedy."""
        try:
            self._check_sort(answers)
            return self.metric.table(answers, truth, self.parameters)
        except EdgewrightError as error:
            hint = error.hint or self._another()
            raise OperatorError(str(error), subject=f"{self.where}, output {self.name!r}", hint=hint) from error

    def _check_sort(self, answers: Any) -> None:
        """Refuse boxes for a metric of arrays, and arrays for one of boxes; a user's own takes what there is."""
        if (self.metric.sort == "boxes") == isinstance(answers, list) or ".py:" in self.metric.name:
            return
        if isinstance(answers, list):
            text = f"{self.metric.name} judges arrays, {self.name!r} is boxes"
            raise OperatorError(text, hint="metric = map50, map or f1_at")
        text = f"{self.metric.name} judges boxes, {self.name!r} is an array"
        raise OperatorError(text, hint="an [[answer]] step nms makes boxes: judge its name")

    def _another(self) -> str | None:
        if not self.others or self.spec is None:
            return None
        first = "the task names no output, so the model's first is judged"
        return f"{first}; its others are {', '.join(self.others)}: name one with [[outputs]], name, metric and truth"

    @property
    def where(self) -> str:
        return "task" if self.spec is None else self.spec.subject


class AnswerJudge:
    """What one task judges of a model with these inputs and outputs. `samples` are those of each input in the order in
    which they are judged, `order` which of the task's they are."""

    def __init__(
        self, task: Task, tensors: Sequence[Input], outputs: Sequence[TensorInfo], order: Array | None = None
    ) -> None:
        self._task, self._outputs = task, [one.name for one in outputs]
        self._steps = task.file.answer
        self._declared = _Declared(inputs=tensors, labels=task.file.labels, answer=self._steps)
        index = np.arange(task.count) if order is None else order
        self.judged = self._all(outputs, index)

    def _all(self, outputs: Sequence[TensorInfo], index: Array) -> tuple[JudgedAnswer, ...]:
        first = outputs[0].name
        others = tuple(one.name for one in outputs[1:])
        named = [
            replace(_named(one, one.name or first, index), others=others if one.name is None else ())
            for one in self._task.judged
        ]
        seen = self._sources({one.name for one in named})
        fed_back = {one.feedback for one in self._task.inputs}
        rest = [
            JudgedAnswer(name=one.name, metric=FIDELITY, truth=None, parameters=Parameters(), named=False)
            for one in outputs
            if one.name not in seen | fed_back
        ]
        return (*named, *rest)

    def _sources(self, names: set[str]) -> set[str]:
        """Return the names and all that the answer steps make them of."""
        found = set(names)
        for step in reversed(self._steps):
            if any(name == step.name or name.startswith(f"{step.name}_") for name in found):
                found |= set(reads(step))
        return found

    def finish(self, outputs: Sequence[Array], maps: Sequence[ScoreMap] = ()) -> Finished:
        """Return what is judged, by name, of a model's outputs to any samples, in the model's order."""
        known: dict[str, Any] = dict(zip(self._outputs, outputs, strict=True))
        wanted = {one.name for one in self.judged}
        if not wanted <= known.keys():
            made = Postprocessor(self._declared, maps).finish(known, {})
            known |= {name: made[name] for name in wanted if name in made}
            for name in wanted - known.keys():
                known[name] = self._boxes(name, made)
        return {name: known[name] for name in wanted}

    @property
    def thresholded(self) -> tuple[str, ...]:
        """The names of the scores that answer steps compare with a threshold."""
        steps = [step for step in self._steps if isinstance(step, Nms | Over)]
        return tuple(dict.fromkeys(name for step in steps for name in scores_of(step)))

    def scores(self, outputs: Sequence[Array]) -> dict[str, Array]:
        """Return the scores that are compared with a threshold, as the model gives them."""
        known: dict[str, Any] = dict(zip(self._outputs, outputs, strict=True))
        if not set(self.thresholded) <= known.keys():
            known = Postprocessor(self._declared).finish(known, {})
        return {name: known[name] for name in self.thresholded}

    def part(self, finished: Finished, where: slice) -> Finished:
        """Return a part of what is judged."""
        return {name: value[where] for name, value in finished.items()}

    def truth(self, one: JudgedAnswer, original: Finished, where: slice) -> Any:
        """Return what is right of a part, made of the original's answers to it where the task has no truth."""
        if one.truth is not None:
            return one.truth[where]
        made = one.metric.without_truth
        if made is None:
            raise OperatorError("needs a truth", subject=one.where)
        try:
            return made(original[one.name], one.parameters)
        except (EdgewrightError, ValueError, AttributeError) as error:
            text = f"no truth can be made of the original's answers: {str(error)[:200]}"
            raise OperatorError(text, subject=f"{one.where}, output {one.name!r}") from error

    def _boxes(self, name: str, made: Mapping[str, Array]) -> list[Boxes]:
        step = next((one for one in self._steps if isinstance(one, Nms) and one.name == name), None)
        if step is None:
            raise OperatorError(f"no output and no answer step {name!r}", subject=self._task.path.name)
        scale = self._scale(step, name)
        return [
            Boxes(boxes=box[:count].astype(np.float64) * scale, classes=kind[:count], scores=score[:count])
            for box, kind, score, count in zip(
                made[f"{name}_boxes"], made[f"{name}_classes"], made[f"{name}_scores"], made[f"{name}_count"],
                strict=True,
            )
        ]  # fmt: skip

    def _scale(self, step: Nms, name: str) -> Array:
        """Return what makes boxes from 0 to 1 those of the truth's unit: pixels where it is in pixels."""
        truths = [one.truth for one in self._task.judged if one.name == name and isinstance(one.truth, list)]
        largest = max((float(box.boxes.max(initial=0.0)) for truth in truths for box in truth), default=0.0)
        if largest <= PIXELS_FROM:
            return np.ones(4)
        if step.image is None:
            text = f"true boxes reach to {largest:g}, those of {name!r} lie between 0 and 1"
            hint = "image = [height, width] in the nms step says what pixels they are of"
            raise OperatorError(text, subject=f"{self._task.path.name} answer", hint=hint)
        return np.array([step.image[1], step.image[0]] * 2, np.float64)


def _named(one: JudgedOutput, name: str, index: Array) -> JudgedAnswer:
    metric = one.metric
    if one.truth is None and metric.without_truth is None:
        metric = replace(FIDELITY, name=metric.name)
    return JudgedAnswer(
        name=name, metric=metric, truth=taken(one.truth, index), parameters=one.parameters, named=True, spec=one
    )


def manifest_inputs(task: Task, inputs: Sequence[TensorInfo]) -> tuple[Input, ...]:
    """Return the manifest's record of each of the task's inputs, as the engine declares them."""
    by_name = {info.name: info for info in inputs}
    return tuple(
        Input(
            name=info.name,
            dtype=info.dtype,  # type: ignore[arg-type]
            shape=info.shape,
            sample=one.mapping if one.samples is not None else SampleMapping(dtype=info.dtype),  # type: ignore[arg-type]
            constant=one.constant,
            feedback=one.feedback,
        )
        for one in task.inputs
        for info in [inputs[0] if one.name is None else by_name[one.name]]
    )
