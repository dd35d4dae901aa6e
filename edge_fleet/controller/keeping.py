"""The controller's part in keeping telemetry only as long as the fleet wants to: when it sweeps, and who does."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError

from edge_fleet.database.retention import RetentionStore
from edge_fleet.database.rollouts import RolloutStore
from edge_fleet.signing.workspace import FleetWorkspace

SWEEP_S, SWEEP_AGAIN_S = 300.0, 0.5
"""How often old telemetry is looked for, and how soon again after some was found."""

LEASE = "retention"


class Keeping:
    """Rolls old telemetry up, a little in each turn, while this controller has the lease for it."""

    def __init__(self, fleet: FleetWorkspace, url: str, holder: str, log: Callable[[str], None]) -> None:
        self._kept, self._holder, self._log = fleet.settings.retention, holder, log
        self._store, self._leases = RetentionStore(url), RolloutStore(url)
        self._next = 0.0

    def look(self, now: float) -> None:
        """Do the next part, at monotonic time `now`. What fails is logged and tried again."""
        if now < self._next:
            return
        self._next = now + SWEEP_S
        try:
            if not self._leases.lease(LEASE, self._holder, time.time(), 2 * SWEEP_S):
                return
            if self._store.sweep(self._kept, datetime.now(UTC)).any:
                self._next = now + SWEEP_AGAIN_S
        except SQLAlchemyError as error:
            self._log(f"old telemetry is kept for now: {str(error)[:300]}")

    def close(self) -> None:
        """Close the database."""
        self._store.close()
        self._leases.close()
