"""What a space says of each parameter, and the edges of what it may say."""

from __future__ import annotations

from typing import Any

import pytest

from edge_compression.recipes.search_space import ParameterRange, parameters, text
from edge_contracts.errors import ContractError

PASSES: list[dict[str, Any]] = [
    {"pass": "prune", "share": 0.5, "levels": 4, "kinds": ["Conv"], "exact": True},
    {"pass": "prune", "share": 0.25, "levels": 8, "kinds": [], "exact": False},
    {"pass": "compact"},
]


def one(field: str, said: Any) -> Any:
    (parameter,) = parameters({"prune": {field: said}}, PASSES, "r")
    return parameter


@pytest.mark.parametrize(
    ("said", "low", "high", "step", "log", "whole"),
    [
        ({"low": 2, "high": 8}, 2, 8, None, False, True),
        ({"low": 4, "high": 8, "step": 2}, 4, 8, 2, False, True),
        ({"low": 1, "high": 4, "log": True}, 1, 4, None, True, True),
        ({"low": 4, "high": 8.5}, 4, 8.5, None, False, False),
        ({"low": 1.0, "high": 8}, 1.0, 8, None, False, False),
        ({"low": 2, "high": 8, "step": 0.5}, 2, 8, 0.5, False, False),
        ({"low": 0.001, "high": 4.0, "log": True}, 0.001, 4.0, None, True, False),
        ({"low": -4, "high": 4}, -4, 4, None, False, True),
    ],
)
def test_a_range_has_both_ends_and_is_of_whole_numbers_if_all_of_it_is(
    said: Any, low: float, high: float, step: float | None, log: bool, whole: bool
) -> None:
    parameter = one("levels", said)
    assert parameter.domain == ParameterRange(low=low, high=high, step=step, log=log)
    assert (parameter.domain.whole, parameter.own, parameter.name) == (whole, 4, "prune.levels")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"low": 4, "high": 4}, "below high"),
        ({"low": 8, "high": 2}, "below high"),
        ({"low": 5, "high": 8}, "own value 4 is outside"),
        ({"low": 1, "high": 3}, "own value 4 is outside"),
        ({"low": 0, "high": 8, "log": True}, "log needs"),
        ({"low": -1, "high": 8, "log": True}, "log needs"),
        ({"low": 1, "high": 8, "log": True, "step": 1}, "log needs"),
        ({"low": 1, "high": 8, "step": 0}, "step must"),
        ({"low": 1, "high": 8, "step": -1}, "step must"),
    ],
)
def test_a_range_that_cannot_be_is_refused_with_the_reason(said: Any, reason: str) -> None:
    with pytest.raises(ContractError, match=reason) as refused:
        one("levels", said)
    assert refused.value.subject == "r.space.prune.levels"


@pytest.mark.parametrize("field", ["kinds", "exact"])
def test_a_range_is_of_numbers_and_truth_is_none(field: str) -> None:
    with pytest.raises(ContractError, match="for numbers"):
        one(field, {"low": 0, "high": 1})


def test_choices_are_of_any_kind_and_the_first_of_two_passes_is_meant() -> None:
    assert one("share", [0.25, 0.5]).own == 0.5
    assert one("kinds", [["Conv"], []]).own == ("Conv",)
    assert one("exact", [True, False]).own is True
    assert one("use", [False, True]).own is True


@pytest.mark.parametrize(
    ("field", "said", "reason"),
    [
        ("use", [True, True], "used or not"),
        ("use", [True, False, "maybe"], "used or not"),
        ("share", [0.5, 0.5], "twice"),
        ("share", [0.25, 0.75], "own value 0.5 is not among them"),
        ("share", [0.5], "length"),
        ("share", [0.5, *range(1, 33)], "length"),
        ("speed", [1, 2], "no such parameter"),
    ],
)
def test_choices_that_cannot_be_are_refused_with_the_reason(field: str, said: Any, reason: str) -> None:
    with pytest.raises(ContractError, match=reason) as refused:
        one(field, said)
    assert f"r.space.prune.{field}" in str(refused.value)


def test_thirty_two_choices_are_not_too_many() -> None:
    assert len(one("share", [0.5, *range(1, 32)]).domain) == 32


def test_a_pass_that_is_not_there_and_one_without_parameters() -> None:
    with pytest.raises(ContractError, match="no such pass") as refused:
        parameters({"shrink": {"use": [True, False]}}, PASSES, "r")
    assert refused.value.subject == "r.space.shrink"
    assert [one.name for one in parameters({"compact": {"use": [True, False]}}, PASSES, "r")] == ["compact.use"]


def test_equal_tables_are_one_value_whatever_their_order() -> None:
    assert text({"b": 1, "a": 2}) == text({"a": 2, "b": 1}) == '{"a": 2, "b": 1}'
    with pytest.raises(ContractError, match="twice"):
        one("share", [0.5, {"b": 1, "a": 2}, {"a": 2, "b": 1}])
