"""The audit log as a hash chain: each line holds the SHA-256 of the line before it. Pure; the file is in
`edge_agent.storage.audit_log`.

Changing, dropping or reordering a line breaks the chain at the next one. Cutting lines off the end cannot be seen from
the log alone, which is why the newest hash goes into every reported state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from edge_contracts.codec import StrictRecord, encode

GENESIS = "0" * 64
"""What the first line of a new log names as its predecessor."""

MAX_LINE_BYTES = 16 * 1024
"""An entry is a few hundred bytes; more is damage."""


class AuditEntry(StrictRecord, frozen=True, kw_only=True):
    """One line. `time` in seconds since the epoch; `serial` counts lines over all rotations."""

    serial: int
    time: float
    event: str
    slot: str | None = None
    text: str = ""
    detail: dict[str, str | int | float | bool] = {}
    previous: str


class ChainHead(StrictRecord, frozen=True, kw_only=True):
    """Where a chain stands: the hash of its last line and that line's serial."""

    digest: str = GENESIS
    serial: int = 0


def line_of(entry: AuditEntry) -> bytes:
    """Return the entry as its canonical line, newline included."""
    return encode(entry) + b"\n"


def follow(head: ChainHead, line: bytes) -> ChainHead:
    """Return the head after `line`. Raises ValueError saying how the line does not continue the chain."""
    if not line.endswith(b"\n"):
        raise ValueError("torn line")
    if len(line) > MAX_LINE_BYTES:
        raise ValueError("line too long")
    try:
        entry = msgspec.json.decode(line, type=AuditEntry)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"not an audit entry: {error}") from error
    if entry.previous != head.digest:
        raise ValueError("does not follow the line before it")
    if entry.serial != head.serial + 1:
        raise ValueError(f"serial {entry.serial} after {head.serial}")
    return ChainHead(digest=hashlib.sha256(line).hexdigest(), serial=entry.serial)


def start_of(line: bytes) -> ChainHead:
    """Return the head that a file's first line claims to continue, for files whose forerunners are rotated away."""
    try:
        entry = msgspec.json.decode(line, type=AuditEntry)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"not an audit entry: {error}") from error
    return ChainHead(digest=entry.previous, serial=entry.serial - 1)


def verify(lines: Iterable[bytes], start: ChainHead | None = None) -> ChainHead:
    """Return the head after all `lines`; without `start` the first line's own claim is taken.

    Raises ValueError naming the number of the first line that does not hold.
    """
    head = start
    for number, line in enumerate(lines, 1):
        try:
            head = follow(start_of(line) if head is None else head, line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return head or ChainHead()
