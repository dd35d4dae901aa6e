"""The earliest time that can be now: the newest that verified metadata has shown."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge_contracts.codec import Record


class _Floor(Record, frozen=True, kw_only=True):
    time: float = 0.0
    signed: float = 0.0


def read_floor(path: Path) -> float:
    """Return the newest time believed when metadata was verified, in seconds since 1970; 0 if there is none. It may be
    that of a clock that was ahead then."""
    return _read(path).time


def read_signed_floor(path: Path) -> float:
    """Return the newest time that stands in a signed document this device has verified; 0 if there is none. Unlike
    `read_floor` it owes nothing to the device's own clock: it cannot be later than now."""
    return _read(path).signed


def _read(path: Path) -> _Floor:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Floor)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return _Floor()
