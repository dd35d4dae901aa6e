"""The audit log on disk: appended and fsynced line by line, rotated within bounds, repaired visibly after a power cut.

The chain itself is in `edge_agent.storage.audit_chain`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from edge_agent.device_event import Detail
from edge_agent.storage.audit_chain import MAX_LINE_BYTES, AuditEntry, ChainHead, follow, line_of, start_of, verify
from edge_agent.storage.durable import StateError, state_error
from edge_io.durable_files import sync_folder

ROTATE_BYTES = 1024 * 1024
"""One file of the log: some 4,000 transitions."""

ROTATIONS = 3
"""Older files kept: the log never takes more than 4 MiB."""


class AuditLog:
    """The device's own account of every transition and refusal. One writer."""

    def __init__(self, path: Path, *, rotate_bytes: int = ROTATE_BYTES) -> None:
        """Open or create the log; a torn last line is cut off and said so in a line of its own. Raises OSError."""
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._head, torn, broken = _recover(path)
        self._file = path.open("ab", buffering=0)  # a buffer would keep a refused line and write it later
        sync_folder(path.parent)  # the name of a new file is not made durable by its lines
        self._unwritten = 0
        with contextlib.suppress(StateError):  # a full disk must not keep the agent from starting
            if torn:
                self.append("audit-repaired", 0.0, text=f"{torn} bytes of an incomplete last line were removed")
            if broken:
                self.append("audit-broken", 0.0, text=broken)

    @property
    def head(self) -> str:
        """SHA-256 of the last line."""
        return self._head.digest

    def append(
        self,
        event: str,
        time: float,
        *,
        slot: str | None = None,
        text: str = "",
        detail: Detail | None = None,
    ) -> None:
        """Add one line, durable on return. Raises StateError when the disk does not take it; the next line that it
        takes is preceded by one that says how many are missing."""
        try:
            if self._unwritten:
                self._add("audit-gap", time, None, f"{self._unwritten} lines could not be written", {})
                self._unwritten = 0
            self._add(event, time, slot, text, detail or {})
        except OSError as error:
            self._unwritten += 1
            raise state_error("cannot be written", error, self._path) from error

    def close(self) -> None:
        self._file.close()

    def _add(self, event: str, time: float, slot: str | None, text: str, detail: Detail) -> None:
        entry = AuditEntry(
            serial=self._head.serial + 1,
            time=time,
            event=event,
            slot=slot,
            text=text[:2000],
            detail=detail,
            previous=self._head.digest,
        )
        line = line_of(entry)
        if len(line) > MAX_LINE_BYTES:
            line = line_of(AuditEntry(serial=entry.serial, time=time, event=event, slot=slot, previous=entry.previous))
        start = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(start)
            raise
        self._head = follow(self._head, line)
        if start + len(line) > self._rotate_bytes:
            with contextlib.suppress(OSError):  # no room for a new file: the old one grows
                self._rotate()

    def _rotate(self) -> None:
        for number in range(ROTATIONS, 0, -1):
            older = _rotated(self._path, number - 1)
            if older.exists():
                older.replace(_rotated(self._path, number))
        full, self._file = self._file, self._path.open("ab", buffering=0)
        full.close()
        sync_folder(self._path.parent)


def audit_files(path: Path) -> list[Path]:
    """Return the files of the log that exist, oldest first."""
    return [file for number in range(ROTATIONS, -1, -1) if (file := _rotated(path, number)).exists()]


def verify_audit(path: Path) -> ChainHead:
    """Check the whole chain over all rotations. Raises ValueError naming the file and the line that does not hold."""
    head: ChainHead | None = None
    for file in audit_files(path):
        with file.open("rb") as lines:
            try:
                after = verify(lines, head)
            except ValueError as error:
                raise ValueError(f"{file.name}: {error}") from error
        if after.serial:
            head = after
    return head or ChainHead()


def _rotated(path: Path, number: int) -> Path:
    return path if number == 0 else path.with_name(f"{path.name}.{number}")


def _recover(path: Path) -> tuple[ChainHead, int, str | None]:
    """Return the head, the bytes of a torn last line (cut off) and what else is wrong with the newest file."""
    files = audit_files(path)
    if not files:
        return ChainHead(), 0, None
    torn = _cut_torn_line(path) if path.exists() else 0
    newest = [file for file in files if file.stat().st_size]
    if not newest:
        return ChainHead(), torn, None
    lines = newest[-1].read_bytes().splitlines(keepends=True)
    try:
        return verify(lines), torn, None
    except ValueError as error:
        # Goes on from the last line as it stands, so that everything after the damage is provable again.
        return _last_head(lines), torn, str(error)


def _last_head(lines: list[bytes]) -> ChainHead:
    for line in reversed(lines):
        try:
            return follow(start_of(line), line)
        except ValueError:
            continue
    return ChainHead()


def _cut_torn_line(path: Path) -> int:
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole == len(data):
        return 0
    with path.open("r+b") as file:
        file.truncate(whole)
        os.fsync(file.fileno())
    return len(data) - whole
