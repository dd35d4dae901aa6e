"""How far a step is, counted again only for devices of which something changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from edge_fleet.rollouts.plan_state import StepProgress
from edge_fleet.rollouts.waves import Standing


class WaveCount:
    """The standings of a wave's devices, and how many there are of each."""

    def __init__(self) -> None:
        self._of: object = None
        self._standings: dict[str, Standing] = {}
        self._counts: Counter[Standing] = Counter()

    def progress(
        self, of: object, devices: Iterable[str], changed: Iterable[str], standing: Callable[[str], Standing | None]
    ) -> StepProgress:
        """Return how far the step is that `of` says: all `devices` are counted when it is another one than before, else
        those that have `changed`. `standing` says how a device stands, None for one that is not in the wave."""
        if of != self._of:
            self._of, self._standings, self._counts = of, {}, Counter()
            changed = devices
        for device in changed:
            before, now = self._standings.pop(device, None), standing(device)
            if before is not None:
                self._counts[before] -= 1
            if now is not None:
                self._counts[now] += 1
                self._standings[device] = now
        counts = self._counts
        return StepProgress(
            passed=counts["passed"],
            failed=counts["failed"],
            busy=counts["busy"],
            waiting=counts["waiting"],
            offline=counts["offline"],
        )
