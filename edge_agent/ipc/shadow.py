"""What the supervisor and a shadow say to each other. The shadow itself runs in `edge_agent.shadow`."""

from __future__ import annotations

from edge_agent.fallback_ladder import Rung
from edge_contracts.codec import StrictRecord
from edge_contracts.shadow import ShadowCounts


class ShadowPlan(StrictRecord, frozen=True, kw_only=True):
    """Everything a shadow is told at its start, as one JSON argument. `rung` is the candidate's, `served` the folder of
    the release whose answers it is compared with."""

    rung: Rung
    served: str
    mirror_fd: int = -1
    threads: int = 1
    cache: str | None = None
    memory_limit_mb: float | None = None
    beat_s: float = 1.0


class ShadowBeat(StrictRecord, frozen=True, kw_only=True):
    """What a shadow says regularly on its standard output: its counts since its start; for how long it has been at one
    request, in seconds; and whether its model is loaded."""

    counts: ShadowCounts
    busy_s: float
    ready: bool
