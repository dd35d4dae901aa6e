"""The recipe grammar: what ships is sound, and every mistake is named."""

from pathlib import Path

import pytest

from edge_compression.recipes.recipe import FLOAT_RECIPES, load_recipes, parse_recipe
from edge_contracts.errors import ContractError

ROOT = Path(__file__).resolve().parents[4]
GOOD = 'summary = "s"\nformat = "onnx"\n[[passes]]\npass = "static_int8"\ncalibrator = "minmax"\n'


@pytest.mark.parametrize("model_format", ["onnx", "tflite"])
def test_shipped_recipes_begin_with_the_float_original(model_format: str) -> None:
    recipes = load_recipes(model_format)  # type: ignore[arg-type]
    assert recipes[0].id in FLOAT_RECIPES
    assert not recipes[0].eight_bit
    assert any(recipe.eight_bit for recipe in recipes)
    assert all(recipe.summary for recipe in recipes)


def test_every_onnx_recipe_resumes_from_the_float_one_so_that_it_is_simplified_once() -> None:
    recipes = load_recipes("onnx")
    assert all(recipe.resumes(recipes[0]) for recipe in recipes)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('pass = "static_int8"', 'pass = "static_int9"', "passes[0]"),
        ('calibrator = "minmax"', 'calibrator = "maxmin"', "passes[0].calibrator"),
        ('calibrator = "minmax"', "calibrater = 1", "calibrater"),
        ('calibrator = "minmax"', "percentile = 101.0", "passes[0].percentile"),
        ('format = "onnx"', 'format = "tflite"', "passes[0]"),
        ('summary = "s"', "", "summary"),
        ("[[passes]]", "[[passes]", "TOML"),
    ],
)
def test_a_mistake_is_named(old: str, new: str, named: str) -> None:
    parse_recipe(GOOD, "good")
    with pytest.raises(ContractError) as caught:
        parse_recipe(GOOD.replace(old, new), "good")
    assert "recipe good" in str(caught.value)
    assert named in str(caught.value)


def test_seven_bit_weights_are_told_from_eight() -> None:
    assert parse_recipe(GOOD, "a").full_range_weights
    assert not parse_recipe(GOOD + "reduce_range = true\n", "a").full_range_weights


def test_a_folder_without_recipes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no recipe"):
        load_recipes("onnx", tmp_path)


def test_a_folder_needs_the_float_recipe_that_every_ladder_ends_with(tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text(GOOD)
    with pytest.raises(ContractError, match="float"):
        load_recipes("onnx", tmp_path)


def test_the_folder_compression_is_no_package() -> None:
    # Python 3.14 has a standard package of that name, which a package here would hide.
    assert not (ROOT / "compression" / "__init__.py").exists()
