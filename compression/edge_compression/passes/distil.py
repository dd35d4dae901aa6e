"""Distillation from the original: what a pass before it cost in accuracy is trained back, without labels.

Here: the recipe's parameters and the way from ONNX to torch and back. The training is in `edge_compression.distil`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from edge_compression.answer import answer
from edge_compression.contract import Applied, Context, PassError
from edge_compression.distil import Training, distil
from edge_compression.onnx_graph import load, save, session, with_outputs
from edge_compression.torch_graph import TorchGraph
from edge_contracts.codec import StrictRecord
from edge_contracts.errors import MissingExtraError
from edge_contracts.limits import MIB
from edge_contracts.manifest import Format

MAX_BYTES = 512 * MIB
"""Of samples held in memory at once; of more, the first are used."""


class Distil(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="distil"):
    """Train the weights to give the original's answers, in torch (extra `train`). `epochs` passes over the samples at
    most, fewer when they would take longer than `seconds`; `rate`: the largest step as a share of a weight's size;
    `mixtures` of each sample with another are learnt from too."""

    format: ClassVar[Format] = "onnx"
    quantises: ClassVar[bool] = False

    epochs: Annotated[int, Meta(ge=1, le=10_000)] = 60
    seconds: Annotated[float, Meta(gt=0.0, le=86_400.0)] = 40.0
    rate: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.01
    batch: Annotated[int, Meta(ge=1, le=4096)] = 32
    mixtures: Annotated[int, Meta(ge=0, le=16)] = 1
    samples: Literal["calibration", "training"] = "training"

    def apply(self, model: bytes, context: Context) -> Applied:
        if importlib.util.find_spec("torch") is None:
            raise MissingExtraError("train", "torch")
        if context.original is None:
            raise PassError("there is no original to learn from; this pass is for recipes")
        student = load(model)
        pupil = TorchGraph(student)
        how = Training(
            epochs=self.epochs, seconds=self.seconds, rate=self.rate, batch=self.batch, mixtures=self.mixtures
        )
        found = distil(pupil, answer(student), _answers(context.original), self._inputs(context), how)
        pupil.write(student)
        return Applied(
            model=save(student),
            changed={
                "steps": found.steps,
                "steps_planned": found.planned,
                "error_before": found.before,
                "error_after": found.after,
            },
        )

    def _inputs(self, context: Context) -> NDArray[Any]:
        source = context.calibration if self.samples == "calibration" else context.training
        if source is None:
            raise PassError("the task names no training samples", subject="data.train")
        first = next(iter(source()), None)
        if first is None:
            raise PassError("there is no sample to train on", subject="data.train")
        if len(first) != 1:
            raise PassError(f"the model has {len(first)} inputs; one can be trained with")
        size = next(iter(first.values())).nbytes
        return np.concatenate([next(iter(feeds.values())) for feeds in islice(source(), max(1, MAX_BYTES // size))])


def _answers(model: bytes) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return what a model answers to inputs, one after the other: its batch may be fixed."""
    parsed = load(model)
    name, wanted = parsed.graph.input[0].name, answer(parsed)
    opened = session(save(with_outputs(parsed, [wanted])))
    return lambda x: np.concatenate([opened.run([wanted], {name: x[index : index + 1]})[0] for index in range(len(x))])
