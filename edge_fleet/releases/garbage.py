"""Removing from a repository what nothing signed names any more: blobs of releases that were never signed, documents
and metadata that newer ones replaced.

Devices that read an older snapshot a moment ago, and a release that is being made, still need what is young; so only
files older than a given age go. What is signed now is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from edge_contracts.codec import Record
from edge_fleet.releases.export import contents
from edge_fleet.signing.workspace import FleetWorkspace

YOUNG = timedelta(days=7)
"""By default, files younger than this stay: a device on a bad link may take days for a release."""


class Collected(Record, frozen=True, kw_only=True):
    """What was removed, or would be: files and their bytes."""

    files: int
    bytes: int


def collect_garbage(fleet: FleetWorkspace, now: datetime, young: timedelta = YOUNG, *, dry: bool = False) -> Collected:
    """Remove what no signed metadata names and is older than `young`; with `dry`, only count it.

    Waits for commands that change the fleet. Raises FleetBusyError, RepositoryError.
    """
    files = total = 0
    with fleet.hold(now) as repository:
        named = {fleet.repository / item.path for item in contents(repository, None)}
        named.update(repository.current_files())
        for path in _files(fleet.repository):
            status = path.lstat()
            if path in named or status.st_mtime > (now - young).timestamp():
                continue
            files, total = files + 1, total + status.st_size
            if not dry:
                path.unlink()
    return Collected(files=files, bytes=total)


def _files(repository: Path) -> Iterator[Path]:
    """Yield what may go; roots are a chain that a device long switched off follows from its first one."""
    for room in ("blobs", "targets", "metadata"):
        for path in (repository / room).rglob("*"):
            if not path.is_dir() and not path.name.endswith(".root.json"):
                yield path
