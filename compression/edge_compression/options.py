"""What the caller of a search decides. The profile fills in what is not said (`limits`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_bench.task_format import Allowance, allowance
from edge_compression.evaluation.pareto import Limits
from edge_compression.evaluation.quality import DEFAULT_CONFIDENCE
from edge_contracts.limits import MIB
from edge_contracts.profile import DeviceProfile

MEMORY_MB = 2048.0
"""Peak memory of a search with everything it starts: what a small build machine has to spare."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """`max_drop` is what an output may lose that has no limit of its own: a number, or a text such as "5%" or "0.3 dB";
    without it 0.5 points, 5 % of an error, 0.5 dB. It is to be kept with one-sided `confidence`; `accept_undecided`
    keeps what loses no more here but may elsewhere. `max_size` in bytes, `max_latency_ms` and `max_memory_mb` as
    measured on this host; None leaves them to the profile.

    `budget_s` bounds the whole search, None takes what the model's size asks for; `variations` of recipes are tried
    at most; `memory_mb` bounds all processes together; the counts bound the samples used.
    """

    max_drop: float | str | None = None
    confidence: float = DEFAULT_CONFIDENCE
    accept_undecided: bool = False
    max_size: int | None = None
    max_latency_ms: float | None = None
    max_memory_mb: float | None = None
    budget_s: float | None = None
    variations: int = 48
    calibration: int = 256
    evaluation: int = 5000
    memory_mb: float = MEMORY_MB

    @property
    def allowance(self) -> Allowance | None:
        """What an output may lose that says nothing itself. Raises ContractError."""
        return None if self.max_drop is None else allowance(self.max_drop, "--max-drop")

    def limits(self, profile: DeviceProfile, max_drop: float, unit: str = "points") -> Limits:
        """Return what every rung must keep, the profile's figures where nothing was said; `max_drop` in `unit` is the
        limit of the first output that is judged."""
        model = profile.model
        return Limits(
            max_drop=max_drop,
            disk_bytes=int(model.disk_mb * MIB),
            max_size=self.max_size,
            max_latency_ms=self.max_latency_ms if self.max_latency_ms is not None else model.latency_ms,
            max_memory_mb=self.max_memory_mb if self.max_memory_mb is not None else model.memory_mb,
            accept_undecided=self.accept_undecided,
            unit=unit,
        )


@dataclass(frozen=True, kw_only=True)
class Work:
    """Where a search keeps what it has: `folder` for models, `storage` the URL of its study. Another run with the
    same task and options goes on from there."""

    folder: Path
    storage: str | None = None

    @property
    def url(self) -> str:
        return self.storage or f"sqlite:///{(self.folder / 'study.db').resolve()}"

    @property
    def shared(self) -> bool:
        """Whether other machines may be at the same study."""
        return self.storage is not None
