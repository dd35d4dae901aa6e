"""Captures on the disk: a ring of files, each a row of sealed records, and reading them back.

    "EWC1", 16 bytes of a random id, 32 bytes of the public key it is sealed for
    for each record: its box's length in 4 bytes, big-endian, and the box, bound to this head and the record's number

A file is only appended to, so a cut leaves whole records and at most a torn last one, which is left out. Records cannot
be changed, reordered or moved to another file unseen. What was written reaches the kernel at once and the disk when a
file is full or closed. Sealing is in `edge_agent.capture.sealing`, what a record holds in `edge_agent.capture.record`.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edge_agent.capture.files import DAY_FORMAT, SUFFIX, capture_files, make_room
from edge_agent.capture.sealing import KEY_BYTES, OVERHEAD_BYTES, Opener, Sealer, SealError
from edge_contracts import limits
from edge_contracts.errors import OperatorError

FILES = 8
"""Files of a full ring: by an eighth of it the oldest goes."""

_MAGIC = b"EWC1"
_ID_BYTES = 16
_HEAD_BYTES = len(_MAGIC) + _ID_BYTES + KEY_BYTES
_LENGTH = struct.Struct(">I")
_MAX_BOX_BYTES = limits.MAX_SERVED_BYTES + OVERHEAD_BYTES


class CaptureRing:
    """Writes records of one process. Two may write into one folder at a time, while one worker replaces another: each
    has a file of its own, and the room for both is kept free."""

    def __init__(self, folder: Path, sealer: Sealer, limit_bytes: int) -> None:
        """Write below `folder` until it is `limit_bytes` full, and over the oldest from then on. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._sealer = sealer
        self._limit = limit_bytes
        self._file: IO[bytes] | None = None
        self._head = b""
        self._size = 0
        self._records = 0

    @property
    def room_bytes(self) -> int:
        """Largest record that fits."""
        return self._limit // FILES - _HEAD_BYTES - _LENGTH.size - OVERHEAD_BYTES

    def write(self, content: bytes) -> int:
        """Append one record of at most `room_bytes`; return the bytes it took. Raises OSError with the file as it was
        before."""
        length = _LENGTH.size + len(content) + OVERHEAD_BYTES
        if self._file is not None and self._size + length > self._limit // FILES:
            self.close()
        file = self._file or self._open()
        box = self._sealer.seal(content, _context(self._head, self._records))
        try:
            file.write(_LENGTH.pack(len(box)) + box)
        except OSError:
            os.ftruncate(file.fileno(), self._size)
            file.seek(self._size)
            raise
        self._size += length
        self._records += 1
        return length

    def close(self) -> None:
        """Make what was written durable."""
        if self._file is not None:
            file, self._file = self._file, None
            with file:
                os.fsync(file.fileno())

    def _open(self) -> IO[bytes]:
        # Room for two whole files: ours, and that of the worker we replace or that replaces us.
        make_room(self._folder, self._limit - 2 * (self._limit // FILES))
        head = _MAGIC + os.urandom(_ID_BYTES) + self._sealer.public_bytes
        now = time.time()
        begun = time.strftime(f"{DAY_FORMAT}T%H%M%S", time.gmtime(now))
        name = f"{begun}.{int(now % 1 * 1e6):06}-{head[4:8].hex()}{SUFFIX}"
        descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        file = os.fdopen(descriptor, "wb", buffering=0)
        try:
            file.write(head)
        except OSError:
            file.close()
            (self._folder / name).unlink(missing_ok=True)
            raise
        self._file, self._head, self._size, self._records = file, head, len(head), 0
        return file


@dataclass(frozen=True, kw_only=True)
class CaptureRecord:
    """One record as it was found: the file it is in, its number there, and its content."""

    file: str
    number: int
    content: bytes


def read_captures(folder: Path, opener: Opener, damaged: Callable[[str, str], None]) -> Iterator[CaptureRecord]:
    """Give every record in `folder`, oldest file first. `damaged` is told of a file whose rest cannot be read, and why.

    A torn last record is no damage. Raises OperatorError if there is no capture, or none that is for this key.
    """
    files = capture_files(folder)
    if not files:
        raise OperatorError(
            "no captures in this folder", subject=str(folder), hint="give captures/<slot> of a state folder"
        )
    others = 0
    for path in files:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            if len(head) < _HEAD_BYTES or not head.startswith(_MAGIC):
                damaged(path.name, "not a capture file")
            elif head[-KEY_BYTES:] != opener.public_bytes:
                others += 1
                damaged(path.name, "encrypted for another key")
            else:
                yield from _records(file, head, opener, damaged)
    if others == len(files):
        raise OperatorError("all captures in it are encrypted for another key", subject=str(folder))


def _records(
    file: IO[bytes], head: bytes, opener: Opener, damaged: Callable[[str, str], None]
) -> Iterator[CaptureRecord]:
    name = Path(file.name).name
    number = 0
    while len(field := file.read(_LENGTH.size)) == _LENGTH.size:
        (length,) = _LENGTH.unpack(field)
        if length == 0 and not file.read().strip(b"\0"):
            return  # room that the file system had set aside and a power cut left empty
        if not OVERHEAD_BYTES <= length <= _MAX_BOX_BYTES:
            damaged(name, f"record {number} says it has {length} bytes")
            return
        box = file.read(length)
        if len(box) < length:
            return  # torn
        try:
            content = opener.open(box, _context(head, number))
        except SealError as error:
            if not box.rstrip(b"\0") or file.read(1) == b"":
                return  # the last one: its length reached the disk and not all of its bytes
            damaged(name, f"record {number}: {error}")
            return
        yield CaptureRecord(file=name, number=number, content=content)
        number += 1


def _context(head: bytes, number: int) -> bytes:
    return head + number.to_bytes(8, "big")
