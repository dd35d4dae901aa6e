"""Along which axis of a tensor features are guarded, and the edges of what a guard may say."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edge_contracts import limits
from edge_contracts.errors import ContractError
from edge_contracts.guards import FeatureGuard, InputGuard, OutputGuard, check_input_guard, check_output_guard

ONE = FeatureGuard(index=0, minimum=0.0)


@pytest.mark.parametrize(
    ("axis", "shape", "size"),
    [(1, (-1, 6, 100), 6), (2, (-1, 6, 100), 100), (-1, (-1, 6, 100), 100), (-2, (-1, 6, 100), 6), (-1, (-1, 4), 4)],
)
def test_features_lie_along_the_axis_from_either_end(axis: int, shape: tuple[int, ...], size: int) -> None:
    last = InputGuard(axis=axis, features=(FeatureGuard(index=size - 1, minimum=0.0),))
    check_input_guard(last, shape, "g")
    with pytest.raises(ContractError, match=f"there are {size}") as refused:
        check_input_guard(InputGuard(axis=axis, features=(FeatureGuard(index=size, minimum=0.0),)), shape, "g")
    assert refused.value.subject == "g.features[0].index"


@pytest.mark.parametrize(
    ("axis", "shape"),
    [
        (0, (4, 6)),
        (-3, (-1, 6, 100)),
        (-4, (-1, 6, 100)),
        (3, (-1, 6, 100)),
        (1, (-1, -1, 3)),
        (-2, (-1, -1, 3)),
        (-1, (6,)),
    ],
)
def test_an_axis_that_has_no_features_is_refused(axis: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(ContractError, match="no features along axis") as refused:
        check_input_guard(InputGuard(axis=axis, features=(ONE,)), shape, "g")
    assert refused.value.subject == "g.axis"


def test_without_features_the_axis_means_nothing() -> None:
    check_input_guard(InputGuard(axis=7), (-1, 4), "g")


@pytest.mark.parametrize("guard", [{"minimum": 1.0, "maximum": 1.0}, {"minimum": -math.inf}, {"maximum": math.inf}, {}])
def test_a_range_of_one_number_or_without_an_end_is_one(guard: dict[str, Any]) -> None:
    check_input_guard(InputGuard(**guard), (-1, 4), "g")
    check_output_guard(OutputGuard(**guard), "g")


@pytest.mark.parametrize("bound", ["minimum", "maximum"])
def test_a_bound_that_is_no_number_is_named(bound: str) -> None:
    for check in (
        lambda: check_input_guard(InputGuard(**{bound: math.nan}), (-1, 4), "g"),
        lambda: check_output_guard(OutputGuard(**{bound: math.nan}), "g"),
    ):
        with pytest.raises(ContractError, match="not a number") as refused:
            check()
        assert refused.value.subject == f"g.{bound}"


@pytest.mark.parametrize(
    ("feature", "field"),
    [
        (FeatureGuard(index=1, categories=(math.nan,)), "categories"),
        (FeatureGuard(index=1, categories=(1.0, math.inf)), "categories"),
        (FeatureGuard(index=1, categories=(1.0, 1.0)), "categories"),
        (FeatureGuard(index=1, maximum=math.nan), "maximum"),
        (FeatureGuard(index=1, categories=(1.0,), action="clip"), "action"),
    ],
)
def test_each_feature_is_looked_at(feature: FeatureGuard, field: str) -> None:
    with pytest.raises(ContractError) as refused:
        check_input_guard(InputGuard(features=(ONE, feature)), (-1, 4), "g")
    assert refused.value.subject == f"g.features[1].{field}"


@pytest.mark.parametrize("action", ["warn", "reject", "fallback"])
def test_categories_may_do_anything_but_clip(action: Any) -> None:
    check_input_guard(InputGuard(features=(FeatureGuard(index=0, categories=(0.0, 1.0), action=action),)), (-1, 4), "g")
    check_input_guard(InputGuard(features=(FeatureGuard(index=0, maximum=1.0, action="clip"),)), (-1, 4), "g")


def test_what_a_signed_guard_leaves_out_means() -> None:
    assert InputGuard() == InputGuard(
        minimum=None, maximum=None, out_of_range="warn", not_finite="reject", axis=-1, features=()
    )
    assert FeatureGuard(index=2) == FeatureGuard(
        index=2, name="", minimum=None, maximum=None, categories=(), action="warn"
    )
    assert OutputGuard() == OutputGuard(minimum=None, maximum=None)
    assert (limits.MAX_CATEGORIES, limits.MAX_GUARDED_FEATURES) == (1024, 256)
