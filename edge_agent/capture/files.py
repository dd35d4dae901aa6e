"""The files of a slot's captures, without what is in them: which there are, and making room. The records are in
`edge_agent.capture.ring`, which needs cryptography; this is also for the supervisor, which does without."""

from __future__ import annotations

import contextlib
from pathlib import Path

SUFFIX = ".capture"
DAY_FORMAT = "%Y%m%d"
"""How the name of a file begins: with the day it was begun, in UTC."""


def capture_files(folder: Path) -> list[Path]:
    """Return the files in a folder of captures, oldest first."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file())


def bytes_in(files: list[Path]) -> int:
    """Return how large files are together; one that has just been deleted counts nothing."""
    total = 0
    for path in files:
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def make_room(folder: Path, limit_bytes: int) -> None:
    """Delete the oldest files until all together have at most `limit_bytes`. Raises OSError."""
    files = capture_files(folder)
    while files and bytes_in(files) > limit_bytes:
        files.pop(0).unlink(missing_ok=True)
