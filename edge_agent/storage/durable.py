"""The state folder's errors, and writing into it. How a write survives a power cut is in `edge_io.durable_files`."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from edge_contracts.errors import DeviceError
from edge_io.durable_files import write_file


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


def write_durably(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Replace the file at `path` by `data`, all or nothing, durable on return; see `edge_io.durable_files`.
    Raises StateError naming the path."""
    try:
        write_file(path, data, mode, shared=False)
    except OSError as error:
        raise state_error("cannot be written", error, path) from error
