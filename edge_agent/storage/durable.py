"""Files and folders that survive a power cut: written aside, synced, renamed."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from edge_contracts.errors import DeviceError

TEMPORARY = ".new"


class StateError(DeviceError):
    """The state folder cannot be read or written: permissions, or the disk is full."""

    reason = "state"


class DiskFullError(StateError):
    """No space is left, or a quota is used up."""

    reason = "disk-full"


def state_error(what: str, error: OSError, path: Path) -> StateError:
    """Return the typed error for `error` at `path`: DiskFullError where there was no room, else StateError."""
    no_space = os.strerror(errno.ENOSPC)
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or no_space in str(error):  # shutil.Error has no errno
        return DiskFullError(f"{what}: {error.strerror or no_space}", subject=str(path))
    return StateError(f"{what}: {error.strerror or error}", subject=str(path))


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes, *, mode: int = 0o640) -> None:
    """Replace the file at `path` by `data`, all or nothing, durable on return. Raises StateError naming the path."""
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise state_error("cannot be written", error, path) from error


def move_durably(source: Path, destination: Path) -> None:
    """Rename a finished folder to its final name, durable on return."""
    source.rename(destination)
    fsync_folder(destination.parent)
    fsync_folder(source.parent)


def delete(folder: Path) -> None:
    """Delete a folder with all that is in it, as far as that goes; of a link, only the link. For this alone `shutil`
    would be loaded, and three compressors with it, which stay in a process that runs for years."""
    for path, folders, files in () if folder.is_symlink() else os.walk(folder, topdown=False):
        for name in (*files, *folders):
            _delete_one(os.path.join(path, name))  # noqa: PTH118 - a Path would intern the name
    _delete_one(str(folder))


def _delete_one(path: str) -> None:
    with contextlib.suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114 - as above
            os.rmdir(path)  # noqa: PTH106 - as above
        else:
            os.unlink(path)  # noqa: PTH108 - as above
