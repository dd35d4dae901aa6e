"""What a model accepts and what it may answer, and what happens to the rest: declared in a task, signed in a bundle.

A field that an agent does not know is an error here, not ignored as elsewhere in a manifest: a guard that is left out
without a word guards nothing. Judging requests is in `edge_agent.inference.guards`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta

from edge_contracts import limits
from edge_contracts.codec import StrictRecord
from edge_contracts.errors import ContractError
from edge_contracts.names import Text

GuardAction = Literal["warn", "clip", "reject", "fallback"]


class FeatureGuard(StrictRecord, frozen=True, kw_only=True):
    """What is accepted of one feature: of the numbers at `index` of the features' axis. Either a range, or
    `categories`, the only numbers there are. `name` is what warnings and errors call it."""

    index: Annotated[int, Meta(ge=0)]
    name: Text = ""
    minimum: float | None = None
    maximum: float | None = None
    categories: Annotated[tuple[float, ...], Meta(max_length=limits.MAX_CATEGORIES)] = ()
    action: GuardAction = "warn"


class InputGuard(StrictRecord, frozen=True, kw_only=True):
    """What is accepted of the tensor fed to the model, after mapping. None means no bound. `features` lie along `axis`,
    negative from the end."""

    minimum: float | None = None
    maximum: float | None = None
    out_of_range: GuardAction = "warn"
    not_finite: GuardAction = "reject"
    axis: int = -1
    features: Annotated[tuple[FeatureGuard, ...], Meta(max_length=limits.MAX_GUARDED_FEATURES)] = ()


class OutputGuard(StrictRecord, frozen=True, kw_only=True):
    """What is accepted of the model's answer; an answer outside goes down the fallback ladder."""

    minimum: float | None = None
    maximum: float | None = None


def check_input_guard(guard: InputGuard, shape: Sequence[int], what: str) -> None:
    """Check a guard of a tensor [batch, ...] of that shape, -1 for any size. Raises ContractError naming the field."""
    _check_range(guard.minimum, guard.maximum, what)
    if not guard.features:
        return
    axis = guard.axis + len(shape) if guard.axis < 0 else guard.axis
    if not 1 <= axis < len(shape) or shape[axis] < 0:
        raise ContractError(f"{list(shape)} has no features along axis {guard.axis}", subject=f"{what}.axis")
    seen: set[int] = set()
    for number, feature in enumerate(guard.features):
        where = f"{what}.features[{number}]"
        if feature.index >= shape[axis] or feature.index in seen:
            text = "appears twice" if feature.index in seen else f"there are {shape[axis]}, counted from 0"
            raise ContractError(f"{feature.index}: {text}", subject=f"{where}.index")
        seen.add(feature.index)
        _check_feature(feature, where)


def check_output_guard(guard: OutputGuard, what: str) -> None:
    """Check that a guard leaves anything to answer. Raises ContractError naming the field."""
    _check_range(guard.minimum, guard.maximum, what)


def _check_feature(feature: FeatureGuard, where: str) -> None:
    bounded = feature.minimum is not None or feature.maximum is not None
    if bounded == bool(feature.categories):
        raise ContractError("either a range or categories", subject=where)
    _check_range(feature.minimum, feature.maximum, where)
    if len(set(feature.categories)) < len(feature.categories) or not all(map(math.isfinite, feature.categories)):
        raise ContractError("each is a number and appears once", subject=f"{where}.categories")
    if feature.categories and feature.action == "clip":
        raise ContractError("of categories none is the nearest: warn, reject or fallback", subject=f"{where}.action")


def _check_range(minimum: float | None, maximum: float | None, what: str) -> None:
    for name, bound in (("minimum", minimum), ("maximum", maximum)):
        if bound is not None and math.isnan(bound):
            raise ContractError("not a number", subject=f"{what}.{name}")
    if minimum is not None and maximum is not None and not minimum <= maximum:
        raise ContractError(f"{minimum:g} is over the maximum {maximum:g}", subject=f"{what}.minimum")
