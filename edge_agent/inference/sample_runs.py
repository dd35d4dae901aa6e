"""Running a model over samples one at a time, as a device does: constants are filled in, states fed back step by step.

One sample is a batch of one; beside an input that is fed back it is a sequence of such steps. What a sample becomes
before it is fed is in `samples.to_model`; judging the answers is in `quality_metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_agent.errors import EngineError
from edge_agent.inference.samples import bind_inputs, bind_outputs, fixed_batch, predict_batches, to_model
from edge_agent.ports import Array, Session
from edge_contracts.manifest import Input, Manifest


class SampleRuns:
    """A model's inputs, under the engine's `names`, with the samples that they are fed.

    `samples` has one array for each tensor, first axis the samples; what stands for a constant or a state is not
    looked at. Raises EngineError when the sequences beside a state are not of one length.
    """

    def __init__(self, tensors: Sequence[Input], names: Sequence[str], samples: Sequence[Array]) -> None:
        self._tensors, self._names, self._samples = tensors, names, samples
        self._sampled = [index for index, tensor in enumerate(tensors) if tensor.sampled]
        self._resting = {
            name: resting(tensor) for tensor, name in zip(tensors, names, strict=True) if not tensor.sampled
        }
        self._states = {tensor.feedback: name for tensor, name in zip(tensors, names, strict=True) if tensor.feedback}
        self.count = min((len(samples[index]) for index in self._sampled), default=0)
        lengths = {samples[index].shape[1] if samples[index].ndim > 1 else 0 for index in self._sampled}
        if self._states and len(lengths) > 1:
            raise EngineError(f"the inputs' sequences have {sorted(lengths)} steps", subject="samples")
        self.steps = lengths.pop() if self._states else 1
        """Steps of each sample."""

    @property
    def sequences(self) -> bool:
        """Whether each sample is a sequence of steps."""
        return bool(self._states)

    def feeds(self, sample: int, step: int = 0) -> dict[str, Array]:
        """Return what the engine is fed for one step of a sample, states as at the first step."""
        made = dict(self._resting)
        for index in self._sampled:
            tensor, array = self._tensors[index], self._samples[index]
            made[self._names[index]] = one_step(array[sample], tensor, step if self._states else None)
        return made

    def answer(self, session: Session, sample: int, outputs: Sequence[str], produced: Sequence[str]) -> list[Array]:
        """Return one sample's answer: an array for each of the engine's `outputs`, without the batch, the steps first
        where it is a sequence. `produced` are the names that `Input.feedback` knows them by. Raises EngineError."""
        rows: list[list[Array]] = [[] for _ in outputs]
        known_by = dict(zip(produced, outputs, strict=True))
        carried: dict[str, Array] = {}
        for step in range(self.steps):
            made = session.run(self.feeds(sample, step) | carried)
            carried = {name: made[known_by[source]] for source, name in self._states.items()}
            for row, name in zip(rows, outputs, strict=True):
                row.append(without_batch(made[name]))
        if not self._states:
            return [row[0] for row in rows]
        return [together(row, name) for row, name in zip(rows, outputs, strict=True)]

    def answers(self, session: Session, outputs: Sequence[str], produced: Sequence[str]) -> list[Array]:
        """Return the answers to all samples, one array [N, ...] for each output. Raises EngineError."""
        found = [self.answer(session, index, outputs, produced) for index in range(self.count)]
        return [together(list(rows), name) for rows, name in zip(zip(*found, strict=True), produced, strict=True)]

    def usual(self) -> list[Array]:
        """Return the feeds of the first step of the first sample, in the tensors' order."""
        feeds = self.feeds(0)
        return [feeds[name] for name in self._names]


def resting(tensor: Input) -> Array:
    """Return a constant, or a state as it is at the first step: zeros."""
    shape = tensor.resting_shape
    if tensor.constant is None:
        return np.zeros(shape, tensor.dtype)
    return np.asarray(tensor.constant).astype(tensor.dtype).reshape(shape)


def one_step(sample: Array, tensor: Input, step: int | None) -> Array:
    """Return what is fed of one sample, in its stored dtype: a batch of one, or the sample itself where the model has
    no axis for batches. `step` chooses one of a sequence."""
    one: Any = np.asarray(sample if step is None else sample[step], order="C")
    return to_model(one if one.ndim == len(tensor.sample_shape) else one[None], tensor)


def without_batch(array: Array) -> Array:
    """Return one step's answer without its axis for batches, where it has one."""
    values: Any = array
    return np.asarray(values[0] if values.ndim and values.shape[0] == 1 else values)


def together(rows: Sequence[Array], name: str) -> Array:
    """Return answers of one shape as one array. Raises EngineError naming the output when they are of several."""
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        few, many = min(shapes), max(shapes)
        raise EngineError(f"answers {list(few)} to one sample and {list(many)} to another", subject=f"output {name}")
    return np.stack(rows)


def samples_at_a_time(manifest: Manifest, samples: Sequence[Array]) -> int:
    """Return how many of these samples the model is fed together: the size of a fixed batch, but one where each sample
    is a whole batch already."""
    pairs = zip(samples, manifest.inputs, strict=True)
    single = all(array.ndim == len(tensor.sample_shape) for array, tensor in pairs if tensor.sampled)
    return fixed_batch(manifest) if single else 1


def predict(session: Session, manifest: Manifest, samples: Sequence[Array]) -> list[Array]:
    """Run `samples` (one array per input, first axis the samples, in `sample.dtype`) and return one array per output.

    One sample at a time, as a device serves: the arithmetic of dynamically quantized models depends on what else is in
    the batch. A model with a fixed batch B is fed B samples at a time. Sequences are run step by step, states fed back.
    Raises EngineError.
    """
    batch = samples_at_a_time(manifest, samples)
    if batch > 1:
        return predict_batches(session, manifest, samples, batch)
    runs = SampleRuns(manifest.inputs, bind_inputs(session, manifest), samples)
    return runs.answers(session, bind_outputs(session, manifest), [tensor.name for tensor in manifest.outputs])
