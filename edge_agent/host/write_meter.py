"""How much the agent's processes have written to storage, by the kernel's own account, kept through restarts.

The kernel counts what each process sends towards the disk: `write_bytes` in /proc/<pid>/io for those that run, and
block output in getrusage(2) for ourselves and for children that have ended. File systems in memory count nothing.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterable
from pathlib import Path

from edge_agent.host.write_budget import DayWrites, spend
from edge_agent.storage.durable import StateError, write_durably
from edge_contracts.codec import decode, encode
from edge_contracts.errors import ContractError
from edge_contracts.limits import KIB

SAVE_S = 900.0
"""How often the account is written down, in seconds: the account itself writes, too."""

_BLOCK_BYTES = 512  # the unit of ru_oublock, whatever the disk's own


class WriteMeter:
    """One account in one file. A damaged or missing file begins it anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._total = 0
        self._save_after = 0.0
        self.spent = DayWrites()
        with contextlib.suppress(OSError, ContractError):
            self.spent = decode(path.read_bytes(), DayWrites, limit=KIB, what=path.name)

    def read(self, children: Iterable[int], clock: float) -> DayWrites:
        """Add what was written since the last reading, with the running processes `children`, at `clock`, seconds since
        the epoch; return the day's account."""
        total = _ended(resource.RUSAGE_SELF) + _ended(resource.RUSAGE_CHILDREN) + sum(map(_running, children))
        # A child that has ended and was not waited for yet is in neither sum for a moment.
        self.spent = spend(self.spent, clock, max(0, total - self._total))
        self._total = max(total, self._total)
        if self._save_after == 0.0:
            self._save_after = clock + SAVE_S
        elif not self._save_after - SAVE_S <= clock < self._save_after:  # or somebody has set the clock back
            self._save_after = clock + SAVE_S
            self.save()
        return self.spent

    def save(self) -> None:
        """Write the account down; a disk that does not take it costs the account only."""
        with contextlib.suppress(StateError):
            write_durably(self._path, encode(self.spent))


def _ended(who: int) -> int:
    return resource.getrusage(who).ru_oublock * _BLOCK_BYTES


def _running(pid: int) -> int:
    """Return what a running process has written, 0 if it cannot be seen."""
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as file:  # noqa: PTH123 - a Path would intern the number
            lines = file.read().splitlines()
        fields = dict(line.split(": ", 1) for line in lines)
        return int(fields["write_bytes"])
    except (OSError, ValueError, KeyError):
        return 0
