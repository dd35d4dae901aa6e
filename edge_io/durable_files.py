"""Files and folders that survive a power cut: a reader sees the old or the new one, never a part.

Every durable write of the agent and the fleet goes through here: temporary name in the same folder, fsync, rename,
fsync of the folder. Functions raise OSError; the agent turns it into StateError in `edge_agent.storage.durable`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PUBLIC_FILE = 0o644
PUBLIC_FOLDER = 0o755
PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
BY_UMASK = 0o640

TEMPORARY, SHARED_TEMPORARY = ".new", ".part"
"""How the names of unfinished files end, where one process writes and where several may. The owner of a folder deletes
what it finds of the first at its start, and of the second what is old."""


def make_folder(path: Path, mode: int = PUBLIC_FOLDER) -> None:
    """Create `path` and its missing parents with `mode`, whatever the umask; leave what exists alone."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        _set_mode(folder, mode)
        sync_folder(folder.parent)


@contextmanager
def replacing(path: Path, mode: int | None = PUBLIC_FILE, *, shared: bool = True) -> Iterator[BinaryIO]:
    """Yield a file open for writing that takes the place of `path`, durably, if the block ends without an error.

    The file gets exactly `mode`, whatever the umask; None leaves it to the umask, within `BY_UMASK`. Where only one
    process ever writes the file, `shared` may be false: then the temporary name is always the same, and power cuts
    leave one leftover at most.
    """
    ending = f".{os.urandom(6).hex()}{SHARED_TEMPORARY}" if shared else TEMPORARY
    temporary = path.with_name(f".{path.name}{ending}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_EXCL if shared else os.O_TRUNC)
    descriptor = os.open(temporary, flags, BY_UMASK if mode is None else PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if mode is not None:
                _set_mode(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_file(path: Path, data: bytes, mode: int | None = PUBLIC_FILE, *, shared: bool = True) -> None:
    """Put `data` at `path`, atomically and durably; see `replacing`."""
    with replacing(path, mode, shared=shared) as file:
        file.write(data)


def move_folder(source: Path, destination: Path) -> None:
    """Rename a finished folder to its final name, durable on return."""
    source.rename(destination)
    sync_folder(destination.parent)
    sync_folder(source.parent)


def delete_tree(folder: Path) -> None:
    """Delete a folder with all that is in it, as far as that goes; of a link, only the link. For this alone `shutil`
    would be loaded, and three compressors with it, which stay in a process that runs for years."""
    for path, folders, files in () if folder.is_symlink() else os.walk(folder, topdown=False):
        for name in (*files, *folders):
            _delete_one(os.path.join(path, name))  # noqa: PTH118 - a Path would intern the name
    _delete_one(str(folder))


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _set_mode(place: Path | int, mode: int) -> None:
    """Set a mode. A stick's file system may know none, which only matters for what is private."""
    try:
        os.chmod(place, mode)  # noqa: PTH101 - a descriptor has no path
    except PermissionError:
        if mode in (PRIVATE_FILE, PRIVATE_FOLDER):
            raise


def _delete_one(path: str) -> None:
    with contextlib.suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114 - as above
            os.rmdir(path)  # noqa: PTH106 - as above
        else:
            os.unlink(path)  # noqa: PTH108 - as above
