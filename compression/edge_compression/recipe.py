"""Recipes: what is tried, as data. One TOML file a recipe, a list of passes with their parameters, checked strictly.

The grammar (`compression/README.md` has it with examples):

    summary = "one line for people"
    format = "onnx" or "tflite"
    [[passes]]
    pass = "<name of a pass>"
    <parameter> = <value>

The file's name without `.toml` is the recipe's id and becomes the variant's. Running a recipe is in `build`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from edge_compression.passes import AnyPass, DynamicInt8, StaticInt8, TfliteInt8
from edge_contracts import limits
from edge_contracts.codec import StrictRecord, convert
from edge_contracts.errors import ContractError
from edge_contracts.manifest import Format
from edge_contracts.names import Name, Text

_HERE = Path(__file__).resolve().parent
_FOLDERS = (_HERE / "recipes", _HERE.parent / "recipes")  # in a wheel; in a checkout

FLOAT_RECIPES = ("float", "tflite-float")
"""The original, at most simplified: always the last rung, one for each format."""


class RecipeFile(StrictRecord, frozen=True, kw_only=True):
    """The content of a recipe file. An empty list of passes leaves the model as it is."""

    summary: Text
    format: Format = "onnx"
    passes: Annotated[tuple[AnyPass, ...], Meta(max_length=32)] = ()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe and the text it was read from, which goes into the bundle beside what it made."""

    id: str
    summary: str
    format: Format
    passes: tuple[AnyPass, ...]
    text: str

    @property
    def full_range_weights(self) -> bool:
        """Whether it makes 8-bit weights that 16-bit sums can saturate on CPUs without VNNI or dot products."""
        return any(isinstance(step, StaticInt8) and not step.reduce_range for step in self.passes)

    @property
    def eight_bit(self) -> bool:
        """Whether weights are stored in 8 bits."""
        return any(isinstance(step, StaticInt8 | DynamicInt8 | TfliteInt8) for step in self.passes)

    def resumes(self, other: Recipe) -> bool:
        """Return whether this recipe begins with all passes of `other`, so that it can start from its result."""
        return self.format == other.format and self.passes[: len(other.passes)] == other.passes


def parse_recipe(text: str, recipe_id: str) -> Recipe:
    """Parse a recipe. Raises ContractError naming the recipe and the field."""
    what = f"recipe {recipe_id}"
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ContractError(f"is no TOML: {error}", subject=what) from error
    convert(recipe_id, Name, what=what)
    file = convert(content, RecipeFile, what=what)
    for index, step in enumerate(file.passes):
        if step.format != file.format:
            raise ContractError(f"this pass is for {step.format} models", subject=f"{what}.passes[{index}]")
    return Recipe(id=recipe_id, summary=file.summary, format=file.format, passes=file.passes, text=text)


def load_recipe(path: Path) -> Recipe:
    """Read one recipe file. Raises ContractError naming the file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ContractError(f"cannot be read: {error.strerror}", subject=str(path)) from error
    if len(data) > limits.MAX_CONFIG_BYTES:
        raise ContractError(f"over the limit of {limits.MAX_CONFIG_BYTES} bytes", subject=str(path))
    return parse_recipe(data.decode("utf-8", errors="replace"), path.stem)


def load_recipes(model_format: Format, folder: Path | None = None) -> tuple[Recipe, ...]:
    """Return the recipes for a format, the float one first, the others by id; ours unless a folder is given.

    Raises ContractError when the folder holds none or not the float one, which is every ladder's last rung.
    """
    chosen = folder if folder is not None else next((path for path in _FOLDERS if path.is_dir()), _HERE)
    recipes = [load_recipe(path) for path in sorted(chosen.glob("*.toml"))]
    fitting = [recipe for recipe in recipes if recipe.format == model_format]
    if not fitting:
        raise ContractError(f"no recipe for {model_format} models", subject=str(chosen))
    if not any(recipe.id in FLOAT_RECIPES for recipe in fitting):
        raise ContractError(f"none of {', '.join(FLOAT_RECIPES)} for {model_format} models", subject=str(chosen))
    return tuple(sorted(fitting, key=lambda recipe: (recipe.id not in FLOAT_RECIPES, recipe.id)))
