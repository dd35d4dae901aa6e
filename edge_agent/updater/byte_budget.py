"""How many bytes the device may still fetch: within one attempt, and on one day over restarts."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edge_agent.storage.durable import write_durably
from edge_contracts.codec import Record, decode
from edge_contracts.errors import ContractError, TransportError
from edge_contracts.limits import MAX_DOCUMENT_BYTES, MIB
from edge_contracts.profile import NetworkBudget


class BudgetError(TransportError):
    """The bytes this device may fetch are used up: by the day, or by too many damaged or repeated chunks."""

    reason = "byte-budget"


@dataclass(kw_only=True)
class ByteBudget:
    """Bytes fetched and the most that may be. Counted before they are asked for, so the limit is never passed."""

    limit: int
    used: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def take(self, count: int) -> None:
        """Raise BudgetError if `count` more bytes are too many."""
        with self._lock:
            if self.used + count > self.limit:
                raise BudgetError(f"{self.used} bytes downloaded, limit {self.limit}")
            self.used += count


class DayBytes(Record, frozen=True, kw_only=True):
    """Bytes fetched on one UTC day."""

    day: str = ""
    used: int = 0


def bytes_left_today(path: Path, network: NetworkBudget) -> int:
    """Return what the profile's daily budget leaves by the record at `path`."""
    return max(0, int(network.daily_mb * MIB) - _today(path).used)


def count_today(path: Path, used: int) -> None:
    """Add to the record at `path`."""
    today = _today(path)
    write_durably(path, msgspec.json.encode(DayBytes(day=today.day, used=today.used + used)))


def _today(path: Path) -> DayBytes:
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    try:
        found = decode(path.read_bytes(), DayBytes, limit=MAX_DOCUMENT_BYTES, what="traffic")
    except (OSError, ContractError):
        return DayBytes(day=day)
    return found if found.day == day else DayBytes(day=day)
