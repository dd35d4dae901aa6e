"""What a recipe lets the search vary: mistakes are named, variations are recipes of their own."""

from __future__ import annotations

import pytest

from edge_compression.recipes.recipe import parse_recipe, varied
from edge_contracts.errors import ContractError

TEXT = """
summary = "s"
[[passes]]
pass = "static_int8"
reduce_range = true
[[passes]]
pass = "bias_correction"
[[passes]]
pass = "compact"
[space.static_int8]
calibrator = ["minmax", "percentile"]
percentile = { low = 99.0, high = 99.99 }
operators = [[], ["Conv", "Gemm"]]
[space.bias_correction]
use = [true, false]
"""
RECIPE = parse_recipe(TEXT, "base")


def test_a_variation_is_a_recipe_that_reads_back_as_itself() -> None:
    values = {"static_int8.operators": ("Conv", "Gemm"), "static_int8.percentile": 99.5, "bias_correction.use": False}
    made = varied(RECIPE, values)
    again = parse_recipe(made.text, made.id)
    assert again.passes == made.passes
    assert [type(step).__name__ for step in made.passes] == ["StaticInt8", "Compact"]
    assert "static_int8.percentile = 99.5" in made.summary
    assert made.id.startswith("base-v")
    assert varied(RECIPE, values).id == made.id
    assert not made.parameters


def test_the_recipes_own_values_are_no_variation() -> None:
    assert varied(RECIPE, {parameter.name: parameter.own for parameter in RECIPE.parameters}) is RECIPE


def test_different_values_have_different_names() -> None:
    ids = {varied(RECIPE, {"static_int8.percentile": 99.0 + step / 100}).id for step in range(50)}
    assert len(ids) == 50


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("[space.static_int8]", "[space.static_int9]", "space.static_int9"),
        ("calibrator =", "calibrater =", "space.static_int8.calibrater"),
        ('["minmax", "percentile"]', '["minmax", "luck"]', "space.static_int8.calibrator"),
        ('["minmax", "percentile"]', '["entropy", "percentile"]', "space.static_int8.calibrator"),
        ('["minmax", "percentile"]', '["minmax", "minmax"]', "space.static_int8.calibrator"),
        ('["minmax", "percentile"]', '["minmax"]', "space.static_int8.calibrator"),
        ("low = 99.0, high = 99.99", "low = 99.0, high = 199.0", "space.static_int8.percentile"),
        ("low = 99.0, high = 99.99", "low = 99.992, high = 99.999", "space.static_int8.percentile"),
        ("low = 99.0, high = 99.99", "low = 99.99, high = 99.0", "space.static_int8.percentile"),
        ("low = 99.0, high = 99.99", "low = 99.0, high = 99.99, step = 0", "space.static_int8.percentile"),
        ("low = 99.0, high = 99.99", "low = 99.0, high = 99.99, size = 1", "space.static_int8.percentile"),
        ("use = [true, false]", "use = [true, 1]", "space.bias_correction.use"),
        ('calibrator = ["minmax", "percentile"]', "calibrator = { low = 1, high = 2 }", "space.static_int8.calibrator"),
    ],
)
def test_a_mistake_in_a_space_is_named(old: str, new: str, named: str) -> None:
    assert old in TEXT
    with pytest.raises(ContractError) as caught:
        parse_recipe(TEXT.replace(old, new), "base")
    assert named in str(caught.value)
