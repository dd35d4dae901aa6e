"""What is known of each recipe's result, gathered step by step: built, judged, glanced at, timed, confirmed, placed.

Gathering is in `search` and `judge`, deciding in `evaluate` and `ladder`; `report` is what people see of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from edge_bench.measure import Measurement
from edge_compression.evaluation.pareto import Costs, PreliminaryMeasurement
from edge_compression.evaluation.quality import Exactness, Quality
from edge_compression.pass_api import Changes
from edge_compression.recipes.recipe import FLOAT_RECIPES, Recipe, parse_recipe
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import ScoreMap

Status = Literal["pending", "failed", "duplicate", "not tried", "left out", "kept"]


class CandidateRecord(StrictRecord, frozen=True, kw_only=True):
    """What a search remembers of a candidate beyond its own life, in the study: all but files and answers."""

    id: str
    recipe: str
    status: Status
    reason: str | None
    sha256: str
    size: int
    changes: tuple[Changes, ...]
    build_s: float
    build_memory_mb: float
    pace: float | None
    quality: Quality | None
    exactness: Exactness | None


@dataclass(kw_only=True)
class Candidate:
    """A recipe and what came of it. `path` is the model it made; `pace` its latency relative to the original's by a
    preliminary measurement. `quality` is on the samples for choosing, after confirming on all; then, where samples
    were kept back, `choosing` is on the former alone and `confirmation` on those kept back. `outputs` are its answers
    to all samples and `calibration` its first output on the calibration samples, where a device judges by that;
    `score_maps` how its scores become the original's. `taken_over`: from an earlier run or another machine."""

    recipe: Recipe
    status: Status = "pending"
    reason: str | None = None
    path: Path | None = None
    sha256: str = ""
    size: int = 0
    changes: tuple[Changes, ...] = ()
    build_s: float = 0.0
    build_memory_mb: float = 0.0
    pace: float | None = None
    quality: Quality | None = None
    choosing: Quality | None = None
    confirmation: Quality | None = None
    exactness: Exactness | None = None
    taken_over: bool = False
    outputs: list[NDArray[Any]] = field(default_factory=list, repr=False)
    calibration: NDArray[Any] | None = field(default=None, repr=False)
    measured: Measurement | None = field(default=None, repr=False)
    score_maps: tuple[ScoreMap, ...] = ()

    @property
    def id(self) -> str:
        return self.recipe.id

    @property
    def is_float(self) -> bool:
        """Whether it is the float original itself."""
        return self.recipe.id in FLOAT_RECIPES

    @property
    def model(self) -> Path:
        """The built model's file; asking before it is built is a bug."""
        assert self.path is not None
        return self.path

    def drop_out(self, status: Status, reason: str) -> None:
        """Take the candidate out of the race, saying why."""
        self.status, self.reason = status, reason

    @property
    def racing(self) -> bool:
        return self.status == "pending"

    def preliminary(self) -> PreliminaryMeasurement:
        """Return what the shortlist compares; only for candidates that were judged."""
        assert self.quality is not None
        assert self.pace is not None
        return PreliminaryMeasurement(loss=self.quality.bound, size=self.size, pace=self.pace)

    def costs(self) -> Costs:
        """Return what the ladder compares; only for candidates that were judged and timed."""
        assert self.quality is not None
        assert self.measured is not None
        return Costs(
            score=self.quality.score,
            drop=self.quality.drop,
            latency_ms=self.measured.latency.p50,
            size=self.size,
            memory_mb=self.measured.loaded.peak_memory_mb,
            bound=None if self.is_float else self.quality.bound,
        )

    def record(self) -> CandidateRecord:
        """Return what is remembered."""
        return CandidateRecord(
            id=self.id,
            recipe=self.recipe.text,
            status=self.status,
            reason=self.reason,
            sha256=self.sha256,
            size=self.size,
            changes=self.changes,
            build_s=self.build_s,
            build_memory_mb=self.build_memory_mb,
            pace=self.pace,
            quality=self.quality,
            exactness=self.exactness,
        )


def restored(record: CandidateRecord) -> Candidate:
    """Return the candidate a record tells of. Raises ContractError when its recipe is not one here."""
    return Candidate(
        recipe=parse_recipe(record.recipe, record.id),
        status=record.status,
        reason=record.reason,
        sha256=record.sha256,
        size=record.size,
        changes=record.changes,
        build_s=record.build_s,
        build_memory_mb=record.build_memory_mb,
        pace=record.pace,
        quality=record.quality,
        exactness=record.exactness,
        taken_over=True,
    )
