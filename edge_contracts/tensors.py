"""What goes into a model and what comes out of it: dtype, shape, the way of a sample to it, and what is accepted.

A manifest has one record for each tensor. The steps of a sample's way are in `processing`, guards in `guards`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

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
    """One model input: its name, dtype and shape as the engine declares them, its mapping and its guard."""

    name: Text
    dtype: DType
    shape: Shape
    sample: SampleMapping
    guard: InputGuard = InputGuard()

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of a batch of samples as they are stored or sent."""
        return self.sample.shape if self.sample.steps else self.shape


class Output(Record, frozen=True, kw_only=True):
    """One model output and what its numbers are; `logits` and `probabilities` have the classes on the last axis."""

    name: Text
    dtype: DType
    shape: Shape
    kind: Literal["logits", "probabilities", "values"] = "values"
    guard: OutputGuard = OutputGuard()


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
