"""What is known of a recipe before it is built: that it cannot be built, or what it would make. Thread-safe.

The search asks before it builds and tells what it learned; nothing here runs a model.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from edge_compression.evaluation.candidate import Candidate
from edge_compression.recipes.recipe import Recipe
from edge_compression.search.build_process import BuildRefused
from edge_compression.search.effects import Impossible, same_effect


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What would become of a recipe: it is impossible, or would make what the candidate `twin` is."""

    reason: str
    twin: Candidate | None = None


class Foresight:
    """What one search has learned about its model."""

    def __init__(self) -> None:
        self._impossible: list[Impossible] = []
        self._lock = threading.Lock()

    def learn(self, recipe: Recipe, refusal: BuildRefused) -> None:
        """Remember that a pass of this recipe is impossible."""
        assert refusal.place is not None
        known = Impossible(
            before=recipe.passes[: refusal.place],
            step=recipe.passes[refusal.place],
            reason=f"{refusal.step}: {refusal.text}",
            whatever=refusal.whatever,
            less=refusal.less,
        )
        with self._lock:
            self._impossible.append(known)

    def fate(self, recipe: Recipe, built: Iterable[Candidate]) -> Fate | None:
        """Return what would become of a recipe, None when only building tells. `built` are the candidates so far."""
        with self._lock:
            impossible = next((one for one in self._impossible if one.rules_out(recipe)), None)
        if impossible is not None:
            return Fate(reason=impossible.reason)
        for one in built:
            known = one.sha256 and one.status != "duplicate" and one.id != recipe.id and not one.is_float
            if known and same_effect(recipe.passes, one.recipe.passes, one.changes):
                return Fate(reason=f"would be the same as {one.id}: the other values have no effect here", twin=one)
        return None
