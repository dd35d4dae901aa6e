"""The blobs of a site's cache on disk: whole ones within a number of bytes, and what arrived of those that broke off.

The least recently asked for go first. Any file may also be deleted by others at any time: it is fetched again when a
device asks for it. What is fetched and when is `edge_fleet.depot.pull_through`'s.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

from edge_fleet.errors import UpstreamError
from edge_io.durable_files import make_folder, sync_folder

_BEGUN = ".begun.part"


class BlobCache:
    """See the module. Safe to use from several threads, and from several processes with one folder."""

    def __init__(self, folder: Path, limit: int | None) -> None:
        """`limit` is in bytes, None for no limit; it is passed by at most what is being fetched."""
        self._folder = folder
        self._limit = limit
        self._trimming = threading.Lock()

    def touch(self, path: Path) -> None:
        """Note that a device has asked for a blob."""
        with contextlib.suppress(OSError):
            os.utime(path)

    def keep(self, path: Path, pieces: Iterator[bytes], begun: Path | None) -> None:
        """Add `pieces` to `begun`, which `take_begun` gave, or to a new file, and give it the name `path`, durably.

        What came before an UpstreamError is left for `take_begun`; whatever else `pieces` raises leaves nothing.
        """
        part = begun or self._part(path)
        try:
            with part.open("ab") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            part.chmod(0o644)
            part.replace(path)
        except UpstreamError:
            if part.stat().st_size:
                part.replace(_begun(path))
            else:
                part.unlink()
            raise
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
        self._trim()

    def take_begun(self, path: Path) -> Path | None:
        """Return the file with the beginning of a blob that broke off; nobody else gets it from then on."""
        part = self._part(path)
        try:
            return _begun(path).rename(part)
        except FileNotFoundError:
            return None

    def _part(self, path: Path) -> Path:
        make_folder(path.parent)
        return path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")

    def _trim(self) -> None:
        """Delete what was not asked for the longest, until the rest fits; never the newest."""
        if self._limit is None:
            return
        with self._trimming:
            blobs = []
            for path in self._folder.glob("*/*"):
                if path.name.endswith(".part") and not path.name.endswith(_BEGUN):
                    continue  # on its way
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    blobs.append((status.st_mtime_ns, status.st_size, path))
            blobs.sort()
            total = sum(size for _, size, _ in blobs)
            for _, size, path in blobs[:-1]:
                if total <= self._limit:
                    return
                path.unlink(missing_ok=True)
                total -= size


def _begun(path: Path) -> Path:
    return path.with_name(f".{path.name}{_BEGUN}")
