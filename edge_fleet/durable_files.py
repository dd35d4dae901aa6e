"""Writing files so that a reader, or a power cut, sees either the old or the new one and never a part.

Every write of this room goes through here: temporary name in the same folder, fsync, rename, fsync of the folder.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PUBLIC_FILE = 0o644
PUBLIC_FOLDER = 0o755
PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


def make_folder(path: Path, mode: int = PUBLIC_FOLDER) -> None:
    """Create `path` and its missing parents with `mode`, whatever the umask; leave what exists alone."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        _set_mode(folder, mode)
        sync_folder(folder.parent)


@contextmanager
def replacing(path: Path, mode: int = PUBLIC_FILE) -> Iterator[BinaryIO]:
    """Yield a file open for writing that takes the place of `path`, durably, if the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            _set_mode(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_file(path: Path, data: bytes, mode: int = PUBLIC_FILE) -> None:
    """Put `data` at `path`, atomically and durably."""
    with replacing(path, mode) as file:
        file.write(data)


def _set_mode(place: Path | int, mode: int) -> None:
    """Set a mode. A stick's file system may know none, which only matters for what is private."""
    try:
        os.chmod(place, mode)  # noqa: PTH101 - a descriptor has no path
    except PermissionError:
        if mode in (PRIVATE_FILE, PRIVATE_FOLDER):
            raise


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
