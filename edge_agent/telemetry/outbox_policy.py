"""Drop policy of a full outbox, and the account of what was dropped. Pure; SQLite is in
`edge_agent.telemetry.outbox`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

Kind = Literal["window", "event", "dropped"]

PRIORITY: dict[Kind, int] = {"window": 0, "event": 1, "dropped": 2}
"""Windows give way before events; what says how much was dropped never does."""

ROW_OVERHEAD_BYTES = 100
"""What a message costs in the spool besides its body, in bytes: row, indexes and page slack of SQLite, rounded up."""


class Spooled(Struct, frozen=True, kw_only=True):
    """A message as it lies in the spool; `row` is its order there."""

    row: int
    boot_id: str
    sequence: int
    kind: Kind
    size: int


class Gap(Struct, frozen=True, kw_only=True):
    """A run of sequence numbers of one boot that were dropped."""

    boot_id: str
    first: int
    count: int


def give_way(candidates: Iterable[Spooled], excess: int) -> list[Spooled]:
    """Return the messages to drop so that at least `excess` bytes are freed: lowest priority first, oldest first."""
    chosen: list[Spooled] = []
    order = sorted((c for c in candidates if c.kind != "dropped"), key=lambda c: (PRIORITY[c.kind], c.row))
    for message in order:
        if excess <= 0:
            break
        chosen.append(message)
        excess -= message.size + ROW_OVERHEAD_BYTES
    return chosen


def merge_gaps(gaps: Iterable[Gap]) -> list[Gap]:
    """Return the same dropped numbers as the fewest runs, in order."""
    merged: list[Gap] = []
    for gap in sorted(gaps, key=lambda g: (g.boot_id, g.first)):
        last = merged[-1] if merged else None
        if last is not None and last.boot_id == gap.boot_id and last.first + last.count >= gap.first:
            end = max(last.first + last.count, gap.first + gap.count)
            merged[-1] = Gap(boot_id=last.boot_id, first=last.first, count=end - last.first)
        else:
            merged.append(gap)
    return merged
