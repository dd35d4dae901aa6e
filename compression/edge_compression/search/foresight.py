"""What is known of a recipe before it is built: that it cannot be built, or what it would make. Thread-safe.

The search asks before it builds and tells what it learned; nothing here runs a model.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from edge_compression.evaluation.candidate import Candidate
from edge_compression.evaluation.graph_profile import GraphFacts
from edge_compression.options import Options
from edge_compression.recipes.recipe import Recipe
from edge_compression.search.base_selection import GAIN
from edge_compression.search.build_process import BuildRefused
from edge_compression.search.effects import Impossible, same_effect
from edge_compression.search.prospects import Rival, arithmetic, objection, prospect

MEASURED = 0.8
"""By how much the pace of a model may be better than that of another one of the same operators, both measured beside
running builds."""


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What would become of a recipe: it is impossible, or would make what the candidate `twin` is."""

    reason: str
    twin: Candidate | None = None


class Foresight:
    """What one search has learned about its model: `facts` of it, None where there are none, its `size` in bytes, what
    was asked for, and what may be lost, `max_drop`."""

    def __init__(self, facts: GraphFacts | None, size: int, options: Options, max_drop: float = 0.0) -> None:
        self._facts, self._size, self._max_drop = facts, size, max_drop
        self._max_size = options.max_size
        # Beside a limit that is measured a little more may be what keeps it: then no candidate rules out another one.
        self._rivalry = options.max_latency_ms is None and options.max_memory_mb is None
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
        known_so_far = [*built]
        hopeless = self._hopeless(recipe, known_so_far)
        if hopeless is not None:
            return Fate(reason=hopeless)
        for one in known_so_far:
            known = one.sha256 and one.status != "duplicate" and one.id != recipe.id and not one.is_float
            if known and same_effect(recipe.passes, one.recipe.passes, one.changes):
                return Fate(reason=f"would be the same as {one.id}: the other values have no effect here", twin=one)
        return None

    def _hopeless(self, recipe: Recipe, built: Sequence[Candidate]) -> str | None:
        """Return why a recipe can win nothing, None when it may."""
        found = None if self._facts is None else prospect(recipe, self._facts)
        if self._facts is None or found is None:
            return None
        paces = [
            one.pace
            for one in built
            if one.pace is not None and not one.is_float and arithmetic(one.recipe.passes) == arithmetic(recipe.passes)
        ]
        # What does the same arithmetic was measured, if roughly.
        pace = max(found.pace, MEASURED * min(paces)) if paces else found.pace
        rivals = [rival for rival in map(self._rival, built) if rival is not None]
        return objection(replace(found, pace=pace), self._facts, self._size, rivals)

    def _rival(self, one: Candidate) -> Rival | None:
        if self._max_size is not None and one.size > self._max_size:
            return None
        if not self._rivalry or not one.racing or one.quality is None or one.pace is None:
            return None
        if not one.is_float and one.quality.bound > self._max_drop:
            return None
        made = None if one.is_float or self._facts is None else prospect(one.recipe, self._facts)
        loses = not one.is_float and (one.quality.drop_interval.low > 0.0 or one.quality.drop > GAIN * self._max_drop)
        pace = 1.0 if one.is_float else one.pace  # the facts are the float recipe's own
        return Rival(id=one.id, size=one.size, pace=pace, loses=loses, lean=made is not None and made.lean)
