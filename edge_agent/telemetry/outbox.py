"""The telemetry spool: messages wait in SQLite until the broker has acknowledged them, through restarts.

Sequence numbers are given here, one counter per boot. What the disk does not take is lost, and its numbers are named in
a tombstone once there is room again. The database is in WAL mode and written in batches, because one
commit per message costs an SD card ten times the bytes. What gives way when it is full is in
`edge_agent.telemetry.outbox_policy`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from edge_agent.storage.durable import StateError
from edge_agent.storage.state_dir import takes_files
from edge_agent.telemetry.outbox_policy import ROW_OVERHEAD_BYTES, Gap, Kind, Spooled, give_way, merge_gaps
from edge_contracts.codec import decode, encode
from edge_contracts.limits import MAX_MESSAGE_BYTES
from edge_contracts.telemetry import Event, TelemetryWindow, Tombstone

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    row INTEGER PRIMARY KEY AUTOINCREMENT, boot_id TEXT NOT NULL, sequence INTEGER NOT NULL,
    kind TEXT NOT NULL, body BLOB NOT NULL);
"""


_ALL = "SELECT row, boot_id, sequence, kind, body FROM messages"
_COPY = "INSERT INTO messages (row, boot_id, sequence, kind, body) VALUES (?, ?, ?, ?, ?)"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Outbox:
    """Bounded in bytes; used from one thread. Raises StateError when the disk does not take a message."""

    def __init__(self, path: Path, *, device: str, boot_id: str, limit_bytes: int) -> None:
        self._device = device
        self._boot_id = boot_id
        self._limit = limit_bytes
        self._path = path
        self._database, self.durable = _open(path)
        self._moved = 0  # rows on the disk up to this one were taken into memory, and count there
        self._bytes = self._count = 0
        self._measure()
        self._sequence = 0
        self._kept = 0  # every number below is in the spool, sent, or named in a tombstone
        self._lost = 0  # numbers from `_kept` to below this one are none of these
        self._offered = 0
        self.dropped = 0

    def restore(self) -> bool:
        """Spool to the disk again, with what memory holds, if the disk takes it; return whether it does."""
        if self.durable:
            return True
        rows = self._database.execute(_ALL).fetchall()
        try:
            disk = _connect(self._path)
        except sqlite3.Error:
            return False
        try:
            disk.execute("DELETE FROM messages WHERE row <= ?", (self._moved,))
            disk.executemany(_COPY, rows)
            disk.commit()
        except sqlite3.Error:
            disk.close()
            return False
        memory, self._database, self.durable = self._database, disk, True
        memory.close()
        self._measure()
        return True

    @property
    def spooled(self) -> int:
        """Messages that wait."""
        return self._count

    def put(self, build: Callable[[int], TelemetryWindow | Event]) -> None:
        """Add the message that `build` makes from its sequence number; durable after the next `commit`."""
        message = build(self._sequence)
        self._sequence += 1
        with self._accounted():
            self._insert(self._boot_id, message.sequence, message.kind, encode(message))

    def commit(self, time: str) -> None:
        """Drop what is over the limit, leaving tombstones dated `time` (UTC), and make everything durable."""
        lost = max(0, self._lost - self._kept)
        with self._accounted():
            if lost:
                self._bury(Gap(boot_id=self._boot_id, first=self._kept, count=lost), time)
            excess = self._bytes - self._limit
            if excess > 0:
                self._make_room(excess + self._limit // 10, time)
            self._database.commit()
        self.dropped += lost
        self._kept = self._sequence

    def pending(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Return at most `limit` messages behind row `after`, oldest first, as (row, body)."""
        query = "SELECT row, body FROM messages WHERE row > ? ORDER BY row LIMIT ?"
        found = self._database.execute(query, (after, limit)).fetchall()
        if found:
            self._offered = max(self._offered, found[-1][0])
        return found

    def acknowledge(self, row: int) -> None:
        """Delete a message the broker has; durable after the next `commit` (a duplicate is harmless)."""
        found = self._database.execute("SELECT length(body) FROM messages WHERE row = ?", (row,)).fetchone()
        if found is not None:
            with contextlib.suppress(StateError), self._accounted():
                self._database.execute("DELETE FROM messages WHERE row = ?", (row,))
                self._forget(found[0])

    def give_up(self, row: int, time: str) -> bool:
        """Replace a message that the broker will never take by a tombstone dated `time` (UTC); return whether that was
        done. A tombstone stays: with it, what it names would be gone unnamed. So does all if the disk takes nothing."""
        query = "SELECT boot_id, sequence, kind, length(body) FROM messages WHERE row = ?"
        found = self._database.execute(query, (row,)).fetchone()
        if found is None or found[2] == "dropped":
            return False
        boot_id, sequence, _, size = found
        try:
            with self._accounted():
                self._database.execute("DELETE FROM messages WHERE row = ?", (row,))
                self._forget(size)
                self._bury(Gap(boot_id=boot_id, first=sequence, count=1), time)
        except StateError:
            return False
        self.dropped += 1
        return True

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._database.commit()
        self._database.close()

    @contextlib.contextmanager
    def _accounted(self) -> Iterator[None]:
        """Make a failed write a StateError, and know what SQLite has rolled back with it ("may", says its manual)."""
        try:
            yield
        except sqlite3.Error as error:
            self._database.rollback()
            self._measure()
            self._lost = self._sequence
            self._leave_read_only_disk()
            raise StateError(f"outbox cannot be written: {error}") from error

    def _leave_read_only_disk(self) -> None:
        """Go on in memory where the disk takes nothing any more, with what waits there: it may still reach the fleet,
        and so does what is told from now on."""
        if not self.durable or takes_files(self._path.parent):
            return
        disk, rows = self._database, []
        with contextlib.suppress(sqlite3.Error):
            rows = disk.execute(_ALL).fetchall()
        self._moved = max((row[0] for row in rows), default=0)
        self._database, self.durable = _in_memory(self._moved), False
        self._database.executemany(_COPY, rows)
        self._database.commit()
        with contextlib.suppress(sqlite3.Error):
            disk.close()
        self._measure()

    def _measure(self) -> None:
        query = "SELECT count(*), coalesce(sum(length(body)), 0) FROM messages"
        self._count, size = self._database.execute(query).fetchone()
        self._bytes = size + self._count * ROW_OVERHEAD_BYTES

    def _insert(self, boot_id: str, sequence: int, kind: Kind, body: bytes) -> None:
        self._database.execute(
            "INSERT INTO messages (boot_id, sequence, kind, body) VALUES (?, ?, ?, ?)",
            (boot_id, sequence, kind, body),
        )
        self._bytes += len(body) + ROW_OVERHEAD_BYTES
        self._count += 1

    def _forget(self, size: int) -> None:
        self._bytes -= size + ROW_OVERHEAD_BYTES
        self._count -= 1

    def _make_room(self, excess: int, time: str) -> None:
        """Drop messages and fold what is said about it into as few tombstones as hold it. What was handed to the
        broker's client already may be on its way and stays."""
        query = "SELECT row, boot_id, sequence, kind, length(body) FROM messages WHERE row > ?"
        rows = self._database.execute(query, (self._offered,)).fetchall()
        found = [Spooled(row=r, boot_id=b, sequence=s, kind=cast("Kind", k), size=n) for r, b, s, k, n in rows]
        chosen = give_way(found, excess)
        gaps = [Gap(boot_id=message.boot_id, first=message.sequence, count=1) for message in chosen]
        self.dropped += len(chosen)
        for message in found:
            if message.kind == "dropped":
                old = self._tombstone(message.row)
                chosen.append(message)
                gaps.append(Gap(boot_id=old.boot_id, first=old.first, count=old.count))
        self._database.executemany("DELETE FROM messages WHERE row = ?", [(message.row,) for message in chosen])
        for message in chosen:
            self._forget(message.size)
        for gap in merge_gaps(gaps):
            self._bury(gap, time)

    def _bury(self, gap: Gap, time: str) -> None:
        """Leave a tombstone. It carries the gap's own last number, so that burying spends no new number."""
        last = gap.first + gap.count - 1
        tombstone = Tombstone(
            device=self._device, boot_id=gap.boot_id, sequence=last, time=time, first=gap.first, count=gap.count
        )
        self._insert(gap.boot_id, last, "dropped", encode(tombstone))

    def _tombstone(self, row: int) -> Tombstone:
        (body,) = self._database.execute("SELECT body FROM messages WHERE row = ?", (row,)).fetchone()
        return decode(body, Tombstone, limit=MAX_MESSAGE_BYTES, what="tombstone")


def _open(path: Path) -> tuple[sqlite3.Connection, bool]:
    """Open the spool, because telemetry must not stop the agent: one that is damaged beyond reading is set aside; one
    that cannot be opened now, for example on a full or read-only disk, stays as it is and memory spools. Return also
    whether it is on the disk."""
    try:
        return _connect(path), True
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in _DAMAGED or not os.access(path.parent, os.W_OK):
            return _in_memory(), False
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.replace(path.with_name(f"{path.name}.damaged"))
        return _connect(path), True


def _in_memory(newest: int = 0) -> sqlite3.Connection:
    """Return a spool in memory, whose new rows are numbered beyond `newest` and any on the disk: they may lie side by
    side later. Microseconds since 1970 are more than a disk can hold messages."""
    database = _connect(":memory:")
    first = max(newest, time.time_ns() // 1000)
    database.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('messages', ?)", (first,))
    database.commit()
    return database


def _connect(path: Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level="DEFERRED")
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("PRAGMA cache_size=-512")
        database.execute(_SCHEMA)
        database.commit()
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database
