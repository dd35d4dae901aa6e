"""Gets a candidate's model: from the model cache when it was built before, else from a build process, which starts
when there is memory and time. What happens in that process is in `build`.
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
    """Where the candidates of one search are built from `model`, whose inputs are `tensors`. A build is expected to
    take `estimate_mb` of memory, must not take more than `memory_mb`, and is let in by `admission`."""

    sample_set: EvaluationSet
    cache: ModelCache
    clock: TimeBudget
    admission: MemoryAdmission
    starter: Starter
    progress: Progress
    model: Path
    tensors: tuple[Input, ...]
    estimate_mb: float
    memory_mb: float

    def supply(self, candidate: Candidate, first: Candidate | None, *, judged: bool = False) -> None:
        """Give a candidate its model; `first` is the float one, from which recipes go on that begin with its passes.
        Raises BuildError, or BudgetSpentError when no work is left; what was `judged`
        is built in any case."""
        cached = self.cache.find(candidate.recipe)
        if cached is None:
            if self.estimate_mb > self.memory_mb:
                needs = f"needs about {self.estimate_mb:.0f} MB of memory, limit {self.memory_mb:g}"
                raise BuildError(needs, subject=candidate.id, hint="increase --memory")
            with self.admission.room(self.estimate_mb):
                allowed_s = self.clock.allowance(core=judged or candidate.recipe.core)
                self.progress.said(f"building {candidate.id}")
                made = self.cache.room(candidate.recipe)
                try:
                    built = self._build(candidate.recipe, first, made, allowed_s)
                    cached = self.cache.place(candidate.recipe, made, built)
                finally:
                    made.unlink(missing_ok=True)
        candidate.path = self.cache.path(candidate.recipe, cached.sha256)
        candidate.sha256, candidate.size = cached.sha256, cached.size
        candidate.build_s, candidate.build_memory_mb = cached.built.seconds, cached.built.peak_memory_mb
        resumed = first is not None and candidate.recipe.resumes(first.recipe)
        candidate.changes = (*(first.changes if first is not None and resumed else ()), *cached.built.changes)

    def _build(self, recipe: Recipe, first: Candidate | None, made: Path, allowed_s: float) -> Built:
        base = first if first is not None and recipe.resumes(first.recipe) else None
        plan = BuildPlan(
            recipe_id=recipe.id,
            recipe=recipe.text,
            skip=len(base.recipe.passes) if base is not None else 0,
            model=str(base.model if base is not None else self.model),
            calibration=str(self.sample_set.calibration),
            count=self.sample_set.count,
            tensors=self.tensors,
            out=str(made),
            memory_limit_mb=self.memory_mb,
            training=None if self.sample_set.training is None else str(self.sample_set.training),
        )
        return build(plan, allowed_s=allowed_s, starter=self.starter)
