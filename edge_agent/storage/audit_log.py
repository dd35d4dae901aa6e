"""The audit log on disk: appended and fsynced line by line, rotated within bounds, repaired visibly after a power cut.

The chain itself is in `edge_agent.storage.audit_chain`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from io import FileIO
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
        """Open or create the log; a torn last line is cut off and said so in a line of its own. On a disk that takes
        nothing that waits for the first line it takes. Raises OSError for a log that cannot be read."""
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._head, broken = _recover(path)
        self._file: FileIO | None = None
        self._unwritten = 0
        with contextlib.suppress(StateError, OSError):  # the state of the disk must not keep the agent from starting
            self._open()
            if broken:
                self.append("audit-broken", 0.0, text=broken)

    @property
    def head(self) -> str:
        """SHA-256 of the last line."""
        return self._head.digest

    @property
    def unwritten(self) -> int:
        """Lines that the disk has not taken since the last one it took."""
        return self._unwritten

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
            self._open()
            if self._unwritten:
                self._add("audit-gap", time, None, f"{self._unwritten} lines could not be written", {})
                self._unwritten = 0
            self._add(event, time, slot, text, detail or {})
        except OSError as error:
            self._unwritten += 1
            raise state_error("cannot be written", error, self._path) from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self) -> FileIO:
        """Return the file to append to, opened if it is not. Raises OSError."""
        if self._file is None:
            torn = _cut_torn_line(self._path) if self._path.exists() else 0
            self._file = FileIO(self._path, "ab")  # a buffer would keep a refused line and write it later
            sync_folder(self._path.parent)  # the name of a new file is not made durable by its lines
            if torn:
                self._add("audit-repaired", 0.0, None, f"{torn} bytes of an incomplete last line were removed", {})
        return self._file

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
        file = self._open()
        start = file.seek(0, os.SEEK_END)
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(start)
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
        full, self._file = self._file, FileIO(self._path, "ab")
        if full is not None:
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


def _recover(path: Path) -> tuple[ChainHead, str | None]:
    """Return the head and what is wrong with the newest file that holds a whole line, a torn last one left aside."""
    for file in reversed(audit_files(path)):
        lines = [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        if not lines:
            continue
        try:
            return verify(lines), None
        except ValueError as error:
            # Goes on from the last line as it stands, so that everything after the damage is provable again.
            return _last_head(lines), str(error)
    return ChainHead(), None


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
