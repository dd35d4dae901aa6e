"""Getting back what the disk has lost of an installed release: only the chunks that are not what the manifest pins.

The manifest is fetched and verified like that of any release, so that nothing has to be believed that lies here. The
release is put together anew beside the damaged one, from every chunk that is still good, and takes its place by a
rename. Which releases are looked at is decided in `edge_agent.supervisor.update_controller`.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from edge_agent.bundle import open_bundle
from edge_agent.errors import DamagedError
from edge_agent.storage.durable import state_error
from edge_contracts.errors import EdgewrightError
from edge_io.durable_files import sync_folder


def damage(folder: Path, manifest_sha256: str) -> DamagedError | None:
    """Return what is wrong with the bytes of an installed release, None if they are what its manifest pins."""
    try:
        found = open_bundle(folder).manifest_sha256
    except (EdgewrightError, OSError) as error:
        return DamagedError(str(error), subject=folder.name[:16])
    if found != manifest_sha256:
        return DamagedError("the manifest's SHA-256 differs from the folder's name", subject=folder.name[:16])
    return None


def set_aside(folder: Path) -> None:
    """Take a damaged release away from its name, durably: processes that have its files open keep them. Raises
    StateError."""
    aside = folder.with_name(f".gone-{folder.name}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(aside)
        sync_folder(folder.parent)
        shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise state_error("a damaged release cannot be replaced", error, folder) from error
