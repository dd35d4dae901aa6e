"""Recipe spaces: which parameters of a recipe the search may vary, and over what. Data in, checked data out.

    [space.<pass>]
    <parameter> = [<value>, ...]                      one of these
    <parameter> = { low = <a>, high = <b> }           between; whole numbers if both are; optional: step, log
    use = [true, false]                               with and without the pass

A pass named here is meant wherever it stands in the recipe. Making a recipe of chosen values is in `recipe`, choosing
them in `study`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from edge_contracts.codec import StrictRecord, convert
from edge_contracts.errors import ContractError

Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...] | dict[str, Scalar]
Choices = Annotated[tuple[Value, ...], Meta(min_length=2, max_length=32)]
USE = "use"
"""The name under which a pass itself, not one of its parameters, is put in or left out."""


class ParameterRange(StrictRecord, frozen=True, kw_only=True):
    """Values from `low` to `high`, both included; in steps of `step`, or spread evenly by their logarithm."""

    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, int | None)


Space = dict[str, dict[str, Any]]
"""What a recipe file says, not yet checked; `parameters` does."""

Domain: Any = Choices | ParameterRange


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter that may vary: of which pass, over what, and the value the recipe itself has."""

    step: str
    field: str
    domain: tuple[Value, ...] | ParameterRange
    own: Value

    @property
    def name(self) -> str:
        return f"{self.step}.{self.field}"


def parameters(space: Space, passes: list[dict[str, Any]], what: str) -> tuple[Parameter, ...]:
    """Return the parameters of a recipe whose passes are given as plain values, defaults included.

    Raises ContractError naming the field when a pass or parameter is not there, or the recipe's own value is not
    among those it may take.
    """
    first = {step["pass"]: step for step in reversed(passes)}
    found = []
    for name, fields in space.items():
        if name not in first:
            raise ContractError("no such pass in this recipe", subject=f"{what}.space.{name}")
        for field, said in fields.items():
            domain = convert(said, Domain, what=f"{what}.space.{name}.{field}")
            own = _own(first[name], field, f"{what}.space.{name}.{field}")
            parameter = Parameter(step=name, field=field, domain=domain, own=own)
            _check(parameter, f"{what}.space.{name}.{field}")
            found.append(parameter)
    return tuple(found)


def _own(step: Mapping[str, Any], field: str, what: str) -> Value:
    if field == USE:
        return True
    if field not in step:
        raise ContractError("this pass has no such parameter", subject=what)
    own: Value = step[field]
    return tuple(own) if isinstance(own, list) else own


def _check(parameter: Parameter, what: str) -> None:
    if isinstance(parameter.domain, ParameterRange):
        _check_range(parameter, parameter.domain, what)
        return
    if parameter.field == USE and sorted(map(str, parameter.domain)) != ["False", "True"]:
        raise ContractError("a pass is used or not: [true, false]", subject=what)
    spelled = [text(value) for value in parameter.domain]
    if len(set(spelled)) != len(spelled):
        raise ContractError("a value appears twice", subject=what)
    if text(parameter.own) not in spelled:
        raise ContractError(f"the recipe's own value {text(parameter.own)} is not among them", subject=what)


def _check_range(parameter: Parameter, domain: ParameterRange, what: str) -> None:
    own = parameter.own
    if isinstance(own, bool) or not isinstance(own, int | float):
        raise ContractError("a range is for numbers", subject=what)
    if not domain.low < domain.high:
        raise ContractError("low must be below high", subject=what)
    if domain.log and (domain.low <= 0 or domain.step is not None):
        raise ContractError("log needs a low above 0 and no step", subject=what)
    if domain.step is not None and domain.step <= 0:
        raise ContractError("step must be above 0", subject=what)
    if not domain.low <= own <= domain.high:
        raise ContractError(f"the recipe's own value {own} is outside", subject=what)


def text(value: Value) -> str:
    """Return a value spelled the same way always; it is also how TOML spells it, but for tables."""
    return json.dumps(value, sort_keys=True)
