"""A repository in a folder: a USB stick, a network share."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from edge_agent.errors import NotFoundError, UnreachableError
from edge_agent.ports import ObjectKind

_NAMES: dict[ObjectKind, re.Pattern[str]] = {
    # A role's name is anything and comes percent-encoded, which leaves it one segment.
    "metadata": re.compile(r"[A-Za-z0-9][A-Za-z0-9_.%~-]{0,127}\.json"),
    "target": re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,127}/){0,8}[A-Za-z0-9][A-Za-z0-9_.-]{0,199}"),
    "blob": re.compile(r"[0-9a-f]{64}"),
}


def repository_path(kind: ObjectKind, name: str) -> str:
    """Return where an object lies below a repository's root. Raises NotFoundError for a name no object can have."""
    if not _NAMES[kind].fullmatch(name):
        raise NotFoundError("invalid name", subject=f"{kind} {name[:80]}")
    if kind == "blob":
        return f"blobs/{name[:2]}/{name}"
    return f"{'metadata' if kind == 'metadata' else 'targets'}/{name}"


class DirectoryTransport:
    """Reads an exported repository: a USB stick or any folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        path = self._root / repository_path(kind, name)
        try:
            # Not blocking and no link followed: the stick may hold a FIFO or a link under an object's name.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise NotFoundError("file not found", subject=str(path)) from error
        except OSError as error:
            raise UnreachableError(f"cannot be read: {error.strerror}", subject=str(path)) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UnreachableError("not a regular file", subject=str(path))
            return os.pread(descriptor, length, offset), status.st_size
        except OSError as error:
            raise UnreachableError(f"cannot be read: {error.strerror}", subject=str(path)) from error
        finally:
            os.close(descriptor)
