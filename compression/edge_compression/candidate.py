"""What is known of each recipe's result, gathered step by step: built, judged, timed, placed.

The records here are what `report.json` holds. Gathering them is in `search`, judging in `evaluate` and `ladder`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from edge_bench.measure import Measurement
from edge_compression.contract import Changes
from edge_compression.evaluate import Exactness, Quality
from edge_compression.ladder import Costs
from edge_compression.recipe import Recipe

Status = Literal["pending", "failed", "duplicate", "not tried", "left out", "kept"]


@dataclass(kw_only=True)
class Candidate:
    """A recipe and what came of it. `path` is the model it made; `outputs` its answers to the evaluation
    samples and `calibration` its first output on the calibration samples."""

    recipe: Recipe
    status: Status = "pending"
    reason: str | None = None
    path: Path | None = None
    sha256: str = ""
    size: int = 0
    changes: tuple[Changes, ...] = ()
    build_s: float = 0.0
    outputs: list[NDArray[Any]] = field(default_factory=list, repr=False)
    calibration: NDArray[Any] | None = field(default=None, repr=False)
    quality: Quality | None = None
    exactness: Exactness | None = None
    measured: Measurement | None = field(default=None, repr=False)

    @property
    def id(self) -> str:
        return self.recipe.id

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
        )
