"""The earliest time that can be now: the newest that verified metadata has shown."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge_contracts.codec import Record


class _Floor(Record, frozen=True, kw_only=True):
    time: float = 0.0


def read_floor(path: Path) -> float:
    """Return the newest time in verified metadata, in seconds since 1970; 0 if there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Floor).time
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return 0.0
