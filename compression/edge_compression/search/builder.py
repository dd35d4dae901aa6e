"""The workshop: gets a candidate's model, from the shelf when it was built before, else from a building process, for
which it waits until there is memory and time. What happens in that process is in `build`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_bench.children import Starter
from edge_compression.evaluation.candidate import Candidate
from edge_compression.evaluation.sample_splits import EvaluationSet
from edge_compression.recipes.recipe import Recipe
from edge_compression.search.build_process import BuildError, BuildPlan, Built, build
from edge_compression.search.memory_admission import MemoryAdmission
from edge_compression.search.model_cache import ModelCache
from edge_compression.search.progress import Progress
from edge_compression.search.time_budget import TimeBudget
from edge_contracts.manifest import Input


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Where the candidates of one search are built from `model`, whose input is `tensor`. A build is expected to take
    `estimate_mb` of memory, must not take more than `memory_mb`, and is let in by `admission`."""

    arena: EvaluationSet
    shelf: ModelCache
    clock: TimeBudget
    admission: MemoryAdmission
    starter: Starter
    progress: Progress
    model: Path
    tensor: Input
    estimate_mb: float
    memory_mb: float

    def supply(self, candidate: Candidate, first: Candidate | None) -> None:
        """Give a candidate its model; `first` is the float one, from which recipes go on that begin with its passes.
        Raises BuildError, or OverError when no time is left for building."""
        shelved = self.shelf.find(candidate.recipe)
        if shelved is None:
            if self.estimate_mb > self.memory_mb:
                needs = f"needs about {self.estimate_mb:.0f} MB of memory, limit {self.memory_mb:g}"
                raise BuildError(needs, subject=candidate.id, hint="increase --memory")
            with self.admission.room(self.estimate_mb):
                self.progress.said(f"building {candidate.id}")
                made = self.shelf.room(candidate.recipe)
                try:
                    built = self._build(candidate.recipe, first, made)
                    shelved = self.shelf.place(candidate.recipe, made, built)
                finally:
                    made.unlink(missing_ok=True)
        candidate.path = self.shelf.path(candidate.recipe, shelved.sha256)
        candidate.sha256, candidate.size = shelved.sha256, shelved.size
        candidate.build_s, candidate.build_memory_mb = shelved.built.seconds, shelved.built.peak_memory_mb
        resumed = first is not None and candidate.recipe.resumes(first.recipe)
        candidate.changes = (*(first.changes if first is not None and resumed else ()), *shelved.built.changes)

    def _build(self, recipe: Recipe, first: Candidate | None, made: Path) -> Built:
        base = first if first is not None and recipe.resumes(first.recipe) else None
        plan = BuildPlan(
            recipe_id=recipe.id,
            recipe=recipe.text,
            skip=len(base.recipe.passes) if base is not None else 0,
            model=str(base.model if base is not None else self.model),
            calibration=str(self.arena.calibration),
            count=self.arena.count,
            tensor=self.tensor,
            out=str(made),
            memory_limit_mb=self.memory_mb,
            training=None if self.arena.training is None else str(self.arena.training),
        )
        return build(plan, timeout_s=self.clock.remaining(), starter=self.starter)
