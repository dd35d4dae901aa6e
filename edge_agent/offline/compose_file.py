"""The file a person writes to make a pipeline of bundles. What the graph means is in `edge_contracts.pipeline`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from edge_contracts.answering import AnswerSteps
from edge_contracts.codec import StrictRecord, convert
from edge_contracts.errors import OperatorError
from edge_contracts.limits import MAX_STEP_ELEMENTS
from edge_contracts.manifest import LastResort
from edge_contracts.names import Name, Text, Version
from edge_contracts.pipeline import CropsNode, MeanNode, Names, PipelineInput, Reference, VoteNode
from edge_contracts.toml import decode_toml


class ModelSource(StrictRecord, frozen=True, kw_only=True, tag_field="kind", tag="model"):
    """A model node with the folder of its bundle, relative to the file; the rest as in `ModelNode`. What the model
    feeds back need not be said: the pipeline keeps it."""

    name: Name
    bundle: Annotated[Text, Meta(min_length=1)]
    inputs: Names
    rows: Reference | None = None
    deadline_ms: Annotated[float, Meta(gt=0.0)] | None = None


class WindowSource(StrictRecord, frozen=True, kw_only=True, tag_field="kind", tag="window"):
    """A window over what a stream brings: its newest `rows`, each of the shape `row`. By default that is what lies
    behind the second axis of `of`."""

    name: Name
    of: Reference
    rows: Annotated[int, Meta(ge=1, le=MAX_STEP_ELEMENTS)]
    row: tuple[Annotated[int, Meta(ge=1)], ...] | None = None


class PipelineOutput(StrictRecord, frozen=True, kw_only=True):
    """What the pipeline answers under a name: an output `of` a node, and what its numbers are."""

    of: Reference
    kind: Literal["logits", "probabilities", "values"] = "values"


class PipelineFile(StrictRecord, frozen=True, kw_only=True):
    """What is composed. `samples` is an .npz file with `input_<i>` for each input, and `y` where there is a metric."""

    name: Name
    version: Version
    samples: Text
    license: Text = ""
    labels: tuple[Text, ...] = ()
    metric: Text | None = None
    min_score: float | None = None
    tolerance: Annotated[float, Meta(gt=0.0)] = 0.05
    inputs: Annotated[dict[Text, PipelineInput], Meta(min_length=1)]
    nodes: Annotated[tuple[ModelSource | CropsNode | MeanNode | VoteNode | WindowSource, ...], Meta(min_length=1)]
    outputs: Annotated[dict[Text, PipelineOutput], Meta(min_length=1)]
    answer: AnswerSteps = ()
    last_resort: LastResort = LastResort()


def read_pipeline_file(path: Path) -> PipelineFile:
    """Read a pipeline's file. Raises OperatorError if it cannot be read, ContractError naming the field."""
    try:
        return convert(decode_toml(path.read_bytes(), what=path.name), PipelineFile, what=path.name)
    except OSError as error:
        raise OperatorError(error.strerror or "cannot be read", subject=str(path)) from error
