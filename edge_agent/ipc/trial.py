"""What is asked of a trial and what it answers. The trial itself runs in `edge_agent.trial`, a throw-away process."""

from __future__ import annotations

from typing import Literal

from edge_contracts.codec import StrictRecord

TrialReason = Literal["ok", "load", "golden", "quality", "latency", "memory", "time", "crash", "engine-missing"]


class TrialPlan(StrictRecord, frozen=True, kw_only=True):
    """Try every variant of the release in `folder` within these limits; the stricter of manifest and profile holds.

    `memory_mb` bounds what one variant adds to the process; `time_s` the whole trial of one variant.
    """

    folder: str
    threads: int = 1
    latency_ms: float | None = None
    memory_mb: float | None = None
    load_s: float | None = None
    time_s: float = 120.0


class VariantTrial(StrictRecord, frozen=True, kw_only=True):
    """What one variant did. None means it did not get that far or the bundle has no such set."""

    variant: str
    reason: TrialReason
    text: str = ""
    score: float | None = None
    golden_error: float | None = None
    latency_ms: float | None = None
    memory_mb: float | None = None
    load_s: float | None = None

    @property
    def passed(self) -> bool:
        return self.reason == "ok"


class TrialReport(StrictRecord, frozen=True, kw_only=True):
    """What the trial found, in ladder order. The release passes if at least one variant does."""

    variants: tuple[VariantTrial, ...]

    @property
    def usable(self) -> tuple[str, ...]:
        return tuple(trial.variant for trial in self.variants if trial.passed)
