"""Recipes: what is tried, as data. One TOML file a recipe, a list of passes with their parameters, checked strictly.

The grammar (`compression/README.md` has it with examples):

    summary = "one line for people"
    format = "onnx" or "tflite"
    rank = <whole number>               which is tried first: the lower; 50 if not said
    core = true                         optional: built and judged even when the budget is used up
    after = "<id of a recipe>"          optional: not tried unless that one keeps the drop limit
    [[passes]]
    pass = "<name of a pass>"
    <parameter> = <value>
    [space.<name of a pass>]            optional: what the search may vary (`space`)
    <parameter> = [<values>] or { low, high, step?, log? }

The file's name without `.toml` is the recipe's id and becomes the variant's. Running a recipe is in `build`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from edge_compression.passes import AnyPass, Distill, Float16, Prune, StaticInt8
from edge_compression.recipes.search_space import USE, Parameter, ParameterRange, Space, Value, parameters, text
from edge_contracts import limits
from edge_contracts.codec import StrictRecord, convert
from edge_contracts.errors import ContractError
from edge_contracts.manifest import Format
from edge_contracts.names import Name, Text
from edge_contracts.toml import decode_toml

_HERE = Path(__file__).resolve().parent
_FOLDERS = (_HERE / "files", _HERE.parents[1] / "recipes")  # in a wheel; in a checkout

FLOAT_RECIPES = ("float", "tflite-float")
"""The original, at most simplified: always the last rung, one for each format."""

MAX_ID_CHARS = 56
"""Of a recipe file's name: a variation adds eight to it, and both are names of variants."""


class RecipeFile(StrictRecord, frozen=True, kw_only=True):
    """The content of a recipe file. An empty list of passes leaves the model as it is."""

    summary: Text
    format: Format = "onnx"
    rank: int = 50
    core: bool = False
    after: Name | None = None
    passes: Annotated[tuple[AnyPass, ...], Meta(max_length=32)] = ()
    space: Space = {}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe and the text it was read from, which goes into the bundle beside what it made. `parameters` is what the
    search may vary in it; it is not tried unless the recipe `after` keeps the drop limit, if there is one here. What is
    of the `core` is tried whatever the budget."""

    id: str
    summary: str
    format: Format
    passes: tuple[AnyPass, ...]
    text: str
    rank: int = 50
    core: bool = False
    after: str | None = None
    parameters: tuple[Parameter, ...] = ()

    @property
    def full_range_weights(self) -> bool:
        """Whether it makes 8-bit weights that 16-bit sums can saturate on CPUs without VNNI or dot products."""
        return any(isinstance(step, StaticInt8) and not step.reduce_range for step in self.passes)

    @property
    def eight_bit(self) -> bool:
        """Whether weights are stored in 8 bits or fewer."""
        return any(step.quantizes and not isinstance(step, Float16) for step in self.passes)

    @property
    def trains(self) -> bool:
        """Whether it learns from the task's training samples."""
        return any(isinstance(step, Prune | Distill) and step.samples == "training" for step in self.passes)

    def resumes(self, other: Recipe) -> bool:
        """Return whether this recipe begins with all passes of `other`, so that it can start from its result."""
        return self.format == other.format and self.passes[: len(other.passes)] == other.passes


def parse_recipe(content: str, recipe_id: str) -> Recipe:
    """Parse a recipe. Raises ContractError naming the recipe and the field."""
    what = f"recipe {recipe_id}"
    values = decode_toml(content.encode(), what=what)
    convert(recipe_id, Name, what=what)
    file = convert(values, RecipeFile, what=what)
    for index, step in enumerate(file.passes):
        if step.format != file.format:
            raise ContractError(f"this pass is for {step.format} models", subject=f"{what}.passes[{index}]")
    recipe = Recipe(
        id=recipe_id,
        summary=file.summary,
        format=file.format,
        passes=file.passes,
        text=content,
        rank=file.rank,
        core=file.core or recipe_id in FLOAT_RECIPES,
        after=file.after,
        parameters=parameters(file.space, _plain(file.passes), what),
    )
    for parameter in recipe.parameters:
        _check_values(recipe, parameter, what)
    return recipe


def _check_values(recipe: Recipe, parameter: Parameter, what: str) -> None:
    """Build every choice, both ends of a range: a value the pass would refuse is a mistake of the file."""
    ends = (
        (parameter.domain.low, parameter.domain.high)
        if isinstance(parameter.domain, ParameterRange)
        else parameter.domain
    )
    for value in ends:
        _varied_passes(recipe, {parameter.name: value}, f"{what}.space.{parameter.name} = {text(value)}")


def varied(recipe: Recipe, values: Mapping[str, Value]) -> Recipe:
    """Return the recipe with these values for its parameters, by their names; itself when nothing differs.

    The result has an id of its own that depends on the values only, and no parameters. Raises ContractError when a pass
    refuses a value.
    """
    changed = {k.name: values[k.name] for k in recipe.parameters if text(values.get(k.name, k.own)) != text(k.own)}
    if not changed:
        return recipe
    digest = hashlib.sha256("".join(f"{name}={text(changed[name])};" for name in sorted(changed)).encode()).hexdigest()
    passes = _varied_passes(recipe, changed, f"recipe {recipe.id}")
    words = ", ".join(f"{name} = {text(changed[name])}" for name in sorted(changed))
    summary = f"{recipe.summary}; varied: {words}"[:2000]
    return Recipe(
        id=f"{recipe.id}-v{digest[:6]}",
        summary=summary,
        format=recipe.format,
        passes=passes,
        text=_toml(summary, recipe.format, passes),
        rank=recipe.rank,
    )


def _varied_passes(recipe: Recipe, changed: Mapping[str, Value], what: str) -> tuple[AnyPass, ...]:
    plain = []
    for step in _plain(recipe.passes):
        own = {name.partition(".")[2]: value for name, value in changed.items() if name.startswith(f"{step['pass']}.")}
        if own.pop(USE, True):
            plain.append({**step, **own})
    return convert({"summary": recipe.summary, "format": recipe.format, "passes": plain}, RecipeFile, what=what).passes


def _plain(passes: tuple[AnyPass, ...]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.to_builtins(passes)
    return found


def _toml(summary: str, model_format: Format, passes: tuple[AnyPass, ...]) -> str:
    lines = [f"summary = {text(summary)}", f"format = {text(model_format)}"]
    for step in _plain(passes):
        lines += ["", "[[passes]]", *(f"{name} = {_spelled(v)}" for name, v in step.items() if v is not None)]
    return "\n".join(lines) + "\n"


def _spelled(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_spelled(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_spelled(inner) for inner in value) + "]"
    return text(value)


def load_recipe(path: Path) -> Recipe:
    """Read one recipe file. Raises ContractError naming the file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ContractError(f"cannot be read: {error.strerror}", subject=str(path)) from error
    if len(data) > limits.MAX_CONFIG_BYTES:
        raise ContractError(f"over the limit of {limits.MAX_CONFIG_BYTES} bytes", subject=str(path))
    if len(path.stem) > MAX_ID_CHARS:
        raise ContractError(f"its name is longer than {MAX_ID_CHARS} characters", subject=str(path))
    return parse_recipe(data.decode("utf-8", errors="replace"), path.stem)


def load_recipes(model_format: Format, folder: Path | None = None) -> tuple[Recipe, ...]:
    """Return the recipes for a format, the float one first, the others by rank and id; ours unless a folder is given.

    Raises ContractError when the folder holds none or not the float one, which is every ladder's last rung.
    """
    chosen = folder if folder is not None else next((path for path in _FOLDERS if path.is_dir()), _HERE)
    recipes = [load_recipe(path) for path in sorted(chosen.glob("*.toml"))]
    fitting = [recipe for recipe in recipes if recipe.format == model_format]
    if not fitting:
        raise ContractError(f"no recipe for {model_format} models", subject=str(chosen))
    if not any(recipe.id in FLOAT_RECIPES for recipe in fitting):
        raise ContractError(f"none of {', '.join(FLOAT_RECIPES)} for {model_format} models", subject=str(chosen))
    return tuple(sorted(fitting, key=lambda recipe: (recipe.id not in FLOAT_RECIPES, recipe.rank, recipe.id)))
