"""What a recipe would do, known before it is built: the same as one that was built, or nothing at all. Pure.

Passes say in their changes for which values of a parameter they would have done the same (`SAME_FROM`, `SAME_BELOW`),
and that they had nothing to do. Two recipes that begin alike and differ only in such values, or in passes that did
nothing, make the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from edge_compression.pass_api import LEFT_OUT, SAME_BELOW, SAME_FROM, SAME_VALUE, Changes
from edge_compression.passes import AnyPass
from edge_compression.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Impossible:
    """The pass `step` that could not be applied after the passes `before` it, and why: `whatever` values these
    parameters of it have, and with no smaller value of its parameter `less`."""

    before: tuple[AnyPass, ...]
    step: AnyPass
    reason: str
    whatever: tuple[str, ...] = ()
    less: str = ""

    def rules_out(self, recipe: Recipe) -> bool:
        """Return whether the recipe asks for what could not be done."""
        count = len(self.before)
        if recipe.passes[:count] != self.before or len(recipe.passes) <= count:
            return False
        asked = recipe.passes[count]
        if not _alike(asked, self.step, {*self.whatever, self.less}):
            return False
        return not self.less or bool(getattr(asked, self.less) <= getattr(self.step, self.less))


def same_effect(asked: Sequence[AnyPass], made: Sequence[AnyPass], changes: Sequence[Changes]) -> bool:
    """Return whether `asked` passes would make the bytes that the passes `made` did; `changes` is what they said, one
    entry each."""
    if len(made) != len(changes):
        return False
    place = 0
    for step, changed in zip(made, changes, strict=True):
        following = asked[place] if place < len(asked) else None
        if following is not None and (following == step or _within(following, step, changed)):
            place += 1
        elif not _idle(changed):
            return False
    return place == len(asked)


def _within(asked: AnyPass, made: AnyPass, changed: Changes) -> bool:
    """Return whether two passes differ in one value only, and the one made says that it is the same to it."""
    field = str(changed.get(SAME_VALUE, ""))
    if not field or not _alike(asked, made, {field}):
        return False
    return float(changed[SAME_FROM]) <= getattr(asked, field) < float(changed[SAME_BELOW])


def _alike(a: AnyPass, b: AnyPass, but: Collection[str]) -> bool:
    """Return whether two passes are of one kind and differ in these parameters only."""
    own, other = msgspec.structs.asdict(a), msgspec.structs.asdict(b)
    return type(a) is type(b) and all(own[name] == other[name] for name in own if name not in but)


def _idle(changed: Changes) -> bool:
    return LEFT_OUT in changed or changed.get("layers") == 0 or changed.get("bytes_saved") == 0
