"""Distillation from the original: what a pass before it cost in accuracy is trained back, without labels.

Here: the recipe's parameters, the time they get, and the way from ONNX to torch and back. The training is in
`edge_compression.distillation.trainer`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from edge_compression.distillation.augmentation import Augmentation
from edge_compression.distillation.torch_module import TorchGraph
from edge_compression.distillation.trainer import Training, check_worth, distill
from edge_compression.onnx_tools.graph import load, save, session, with_outputs
from edge_compression.onnx_tools.latency import seconds_per_answer
from edge_compression.onnx_tools.logits import logits_of
from edge_compression.pass_api import Applied, Context, Feeds, PassError
from edge_contracts.codec import StrictRecord
from edge_contracts.errors import MissingExtraError
from edge_contracts.limits import MIB
from edge_contracts.manifest import Format

MAX_BYTES = 512 * MIB
"""Of samples held in memory at once; of more, the first are used."""

SHARE_OF_TIME = 0.4
"""Of what is left of a search's time that one training may take: others wait for their turn."""

ANSWERS_A_STEP = 3.0
"""A step takes at least so many answers of the engine a sample: forward, backward twice as long."""


class Distill(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="distill"):
    """Train the weights to give the original's answers, in torch (extra `train`): `steps` of `batch` samples, fewer if
    they take longer than `seconds` or the search's budget allows. `rate`: the largest step as a share of a weight's
    size; `mixtures` and `shift`: how samples are varied (`edge_compression.distillation.augmentation`)."""

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = False

    steps: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    seconds: Annotated[float, Meta(gt=0.0, le=86_400.0)] = 1800.0
    rate: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.02
    batch: Annotated[int, Meta(ge=1, le=4096)] = 32
    mixtures: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0
    shift: Annotated[float, Meta(ge=0.0, le=0.5)] = 0.125
    samples: Literal["calibration", "training"] = "training"

    def foresee(self, model: bytes, context: Context) -> None:
        """Raise what `apply` would, before other passes work in vain: no torch, no samples, far too little time."""
        if importlib.util.find_spec("torch") is None:
            raise MissingExtraError("train", "torch")
        if context.original is None:
            raise PassError("no original model to learn from; use this pass in a recipe")
        first = next(iter(self._source(context)()), None)
        if first is None:
            raise PassError("no training samples", subject="data.train")
        if len(first) != 1:
            raise PassError(f"the model has {len(first)} inputs; one can be trained with")
        expected = ANSWERS_A_STEP * self.batch * self.steps * seconds_per_answer(model, first)
        check_worth(self.steps, expected, self._allowed(context))

    def apply(self, model: bytes, context: Context) -> Applied:
        self.foresee(model, context)
        assert context.original is not None
        student = load(model)
        pupil = TorchGraph(student)
        how = Training(
            steps=self.steps,
            seconds=self._allowed(context),
            rate=self.rate,
            batch=self.batch,
            variations=Augmentation(mixtures=self.mixtures, shift=self.shift),
        )
        found = distill(pupil, logits_of(student), _answers(context.original), self._inputs(context), how)
        pupil.write(student)
        return Applied(
            model=save(student),
            changed={
                "steps": found.steps,
                "steps_wanted": self.steps,
                "error_before": found.before,
                "error_after": found.after,
            },
        )

    def _allowed(self, context: Context) -> float:
        left = context.seconds_left
        return self.seconds if left is None else min(self.seconds, max(SHARE_OF_TIME * left(), 1e-3))

    def _source(self, context: Context) -> Callable[[], Iterator[Feeds]]:
        source = context.calibration if self.samples == "calibration" else context.training
        if source is None:
            raise PassError("the task names no training samples", subject="data.train")
        return source

    def _inputs(self, context: Context) -> NDArray[Any]:
        source = self._source(context)
        size = next(iter(next(source()).values())).nbytes
        return np.concatenate([next(iter(feeds.values())) for feeds in islice(source(), max(1, MAX_BYTES // size))])


def _answers(model: bytes) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return what a model answers to inputs, one after the other: its batch may be fixed."""
    parsed = load(model)
    name, wanted = parsed.graph.input[0].name, logits_of(parsed)
    opened = session(save(with_outputs(parsed, [wanted])))
    return lambda x: np.concatenate([opened.run([wanted], {name: x[index : index + 1]})[0] for index in range(len(x))])
