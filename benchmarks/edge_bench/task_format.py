"""The task file's records: what a person writes. Reading a task with its samples is in `task`, the kinds of data in
`task_data`; docs/how-to/compress-a-model.md and docs/how-to/tasks.md show every field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from edge_contracts import limits
from edge_contracts.answering import AnswerSteps
from edge_contracts.codec import StrictRecord
from edge_contracts.errors import ContractError
from edge_contracts.guards import InputGuard, OutputGuard
from edge_contracts.manifest import DType, LastResort
from edge_contracts.names import Name, Text
from edge_contracts.processing import Side, Steps
from edge_contracts.tensors import Shape

_ALLOWANCE = re.compile(r"^([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*(%|pt|points|dB)?$")

WHERE = Meta(min_length=1, max_length=2000)


class DataSection(StrictRecord, frozen=True, kw_only=True):
    """Where the samples are: one of an archive of arrays (`file`: .npz), a folder of `images` or of sounds (`wav`), a
    `table` (CSV or Parquet). `calibration` is the prefix of the arrays for calibration; without any such arrays a part
    of the samples is set aside. `slices` names the array of group labels, used when it is there.

    Images: `labels` is a CSV with columns file and label, `coco` a file of COCO annotations, `yolo` a folder of YOLO's
    text files, `masks` a folder of images with the class of each pixel; `size` (height, width) brings all to one size,
    `color` is rgb or grey, `layout` nhwc or nchw. Sounds: `labels` too, `length` cuts or fills up with zeros to so many
    numbers. Tables: `target` is the column with what is right, `columns` those that are fed; others are left out.
    """

    file: Annotated[str, WHERE] | None = None
    train: Text | None = None
    calibration: Annotated[str, WHERE] | None = None
    slices: Text = "slices"
    images: Annotated[str, WHERE] | None = None
    wav: Annotated[str, WHERE] | None = None
    table: Annotated[str, WHERE] | None = None
    labels: Annotated[str, WHERE] | None = None
    coco: Annotated[str, WHERE] | None = None
    yolo: Annotated[str, WHERE] | None = None
    masks: Annotated[str, WHERE] | None = None
    size: tuple[Side, Side] | None = None
    color: Annotated[str, Meta(pattern="^(rgb|grey)$")] = "rgb"
    layout: Annotated[str, Meta(pattern="^(nhwc|nchw)$")] = "nhwc"
    length: Annotated[int, Meta(ge=1)] | None = None
    target: Text | None = None
    columns: tuple[Text, ...] = ()


class InputSection(StrictRecord, frozen=True, kw_only=True):
    """What the model is fed: `steps`, then ((x - offset) * scale) cast to `dtype`. `shape` is what samples may have
    where the model serves, with the batch first; that of the data's if not given."""

    dtype: DType
    scale: float = 1.0
    offset: float = 0.0
    shape: Shape = ()
    steps: Steps = ()


class NamedInput(StrictRecord, frozen=True, kw_only=True):
    """One of several inputs: the array `data` of samples with the way of one to the model, a `constant` (a number or a
    list), or the output of the step before (`feedback`). The dtype is the model's if not given."""

    data: Text | None = None
    constant: Any = None
    feedback: Text | None = None
    dtype: DType | None = None
    scale: float = 1.0
    offset: float = 0.0
    shape: Shape = ()
    steps: Steps = ()


class OutputSection(StrictRecord, frozen=True, kw_only=True):
    """What is judged: an output of the model or what an [[answer]] step adds, by a metric, against the array `truth`
    or the original's own answers. `max_drop` is this output's limit; a number with a `unit` is one in that unit."""

    name: Text
    metric: Text = "fidelity"
    truth: Text | None = None
    axis: int = -1
    weight: Annotated[float, Meta(gt=0.0)] = 1.0
    max_drop: float | str | None = None
    unit: Text = ""
    threshold: float | None = None
    k: Annotated[int, Meta(ge=1)] | None = None


class GuardSection(StrictRecord, frozen=True, kw_only=True):
    """What a device accepts and answers. A range of the input that is not given is taken from calibration samples."""

    input: InputGuard = InputGuard()
    output: OutputGuard = OutputGuard()


class TaskFile(StrictRecord, frozen=True, kw_only=True):
    """The content of a task file."""

    name: Name
    model: Annotated[Text, Meta(min_length=1)]
    metric: Text | None = None
    labels: Annotated[tuple[Text, ...], Meta(max_length=limits.MAX_LABELS)] = ()
    license: Text = ""
    data: DataSection | Annotated[str, WHERE]
    input: InputSection | None = None
    inputs: Annotated[dict[Text, NamedInput], Meta(max_length=limits.MAX_TENSORS)] = {}
    outputs: Annotated[tuple[OutputSection, ...], Meta(max_length=limits.MAX_TENSORS)] = ()
    answer: AnswerSteps = ()
    guard: GuardSection = GuardSection()
    last_resort: LastResort = LastResort()


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What may be lost: a number and its unit: %, points, dB, or empty where the metric says which."""

    value: float
    unit: str = ""


def allowance(given: float | str, what: str) -> Allowance:
    """Read `0.5`, `"1%"`, `"0.5pt"` or `"0.3 dB"`. Raises ContractError naming the field."""
    found = _ALLOWANCE.match(str(given).strip())
    if found is None or not float(found[1]) >= 0.0:
        raise ContractError(f'{str(given)[:40]!r} is no limit such as 0.5, "5%" or "0.3 dB"', subject=what)
    return Allowance(value=float(found[1]), unit="points" if found[2] == "pt" else found[2] or "")
