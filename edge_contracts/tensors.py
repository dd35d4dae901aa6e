"""What goes into a model and what comes out of it: dtype, shape, the way of a sample to it, and what is accepted.

A manifest has one record for each tensor. The steps of a sample's way are in `processing`, guards in `guards`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from edge_contracts import limits
from edge_contracts.codec import Record
from edge_contracts.errors import ContractError
from edge_contracts.guards import InputGuard, OutputGuard
from edge_contracts.names import Text
from edge_contracts.processing import ANY, Steps, shape_after

DType = Literal[
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"
]
Dimension = Annotated[int, Meta(ge=-1, description="-1: any size; the first dimension is the batch.")]
Shape = Annotated[tuple[Dimension, ...], Meta(max_length=limits.MAX_RANK)]

Infinite = Literal["-inf", "inf", "both"]


class SampleMapping(Record, frozen=True, kw_only=True):
    """How a sample as the data set stores it becomes what the model is fed: through `steps`, then
    `((x - offset) * scale)`, then cast to the input's dtype. A request in `dtype` is mapped; one already in the
    input's own dtype is fed as it is. Where both dtypes are equal the mapping always applies.

    `shape` is the sample's where steps change it, with the batch first; without steps it is the input's own."""

    dtype: DType
    offset: float = 0.0
    scale: float = 1.0
    shape: Shape = ()
    steps: Steps = ()


class Input(Record, frozen=True, kw_only=True):
    """One model input: its name, dtype and shape as the engine declares them, its mapping and its guard.

    `constant` holds all its numbers in row-major order, where they are the same for every sample. `feedback` names the
    output of the step before that is this input, zeros at the first step. A request may leave out either of the two:
    a constant is then as declared, a state as at the first step. Sample sets hold neither; beside a state, each of
    their samples is a sequence of steps.
    """

    name: Text
    dtype: DType
    shape: Shape
    sample: SampleMapping
    guard: InputGuard = InputGuard()
    constant: Annotated[tuple[int | float, ...], Meta(max_length=limits.MAX_CONSTANTS)] | None = None
    feedback: Text | None = None

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of a batch of samples as they are stored or sent."""
        return self.sample.shape if self.sample.steps else self.shape

    @property
    def sampled(self) -> bool:
        """Whether samples say what it is fed; a constant and a state are known without any."""
        return self.constant is None and self.feedback is None

    @property
    def resting_shape(self) -> tuple[int, ...]:
        """The shape of one step's tensor, with dimensions of any size taken as 1."""
        return tuple(max(size, 1) for size in self.shape)


class Output(Record, frozen=True, kw_only=True):
    """One model output and what its numbers are; `logits` and `probabilities` have the classes on the last axis.

    `infinite`: the model answers such numbers where it was made, scores of what is masked out for example, so they are
    answers and no fault. Written only where it is so: other manifests have the bytes they always had.
    """

    name: Text
    dtype: DType
    shape: Shape
    kind: Literal["logits", "probabilities", "values"] = "values"
    guard: OutputGuard = OutputGuard()
    infinite: Infinite | UnsetType = UNSET


def check_inputs(inputs: Sequence[Input], outputs: Sequence[Output], what: str) -> None:
    """Check that constants fill their inputs, that states are outputs of the same kind, and that some input takes
    samples. Raises ContractError naming the field."""
    by_name = {tensor.name: tensor for tensor in outputs}
    for index, tensor in enumerate(inputs):
        where = f"{what}[{index}]"
        if tensor.constant is not None and tensor.feedback is not None:
            raise ContractError("is either a constant or fed back", subject=where)
        if tensor.constant is not None and len(tensor.constant) != math.prod(tensor.resting_shape):
            text = f"{len(tensor.constant)} numbers for {list(tensor.shape)}"
            raise ContractError(text, subject=f"{where}.constant")
        if tensor.feedback is None:
            continue
        made = by_name.get(tensor.feedback)
        if made is None:
            raise ContractError(f"no output {tensor.feedback[:80]!r}", subject=f"{where}.feedback")
        if made.dtype != tensor.dtype or not may_be(made.shape, tensor.shape):
            text = f"an output of {made.dtype} {list(made.shape)} for an input of {tensor.dtype} {list(tensor.shape)}"
            raise ContractError(text, subject=f"{where}.feedback")
    if not any(tensor.sampled for tensor in inputs):
        raise ContractError("each is a constant or fed back: nothing is left to ask about", subject=what)


def may_be(one: Sequence[int], other: Sequence[int]) -> bool:
    """Return whether two shapes, with -1 for any size, may be of the same array."""
    return len(one) == len(other) and all(ANY in (a, b) or a == b for a, b in zip(one, other, strict=True))


def check_sample(tensor: Input, what: str) -> None:
    """Check that the steps of an input lead from a sample to what the model takes. Raises ContractError."""
    sample = tensor.sample
    if not sample.steps and not sample.shape:
        return
    if not sample.steps or not sample.shape:
        raise ContractError("shape and steps belong together", subject=what)
    if sample.dtype == "bool" or sample.shape[0] not in (ANY, *tensor.shape[:1]) or 0 in sample.shape:
        text = f"samples of {sample.dtype} {list(sample.shape)} for an input of {list(tensor.shape)}"
        raise ContractError(text, subject=f"{what}.shape")
    made = shape_after(sample.shape[1:], sample.steps, f"{what}.steps")
    wanted = tensor.shape[1:]
    if len(made) != len(wanted) or any(w not in (ANY, m) for m, w in zip(made, wanted, strict=True)):
        raise ContractError(f"they make {list(made)}, the model takes {list(wanted)}", subject=f"{what}.steps")
