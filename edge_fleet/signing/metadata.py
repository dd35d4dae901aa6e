"""Reading the fleet's own TUF metadata files. Signing them is in `repository`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError as TufError
from tuf.api.metadata import (
    Metadata,
)
from tuf.api.serialization import DeserializationError

from edge_fleet.errors import RepositoryError


def read_metadata(path: Path) -> Metadata[Any]:
    """Read one metadata file of our own repository. Raises RepositoryError naming the file."""
    try:
        return Metadata.from_bytes(path.read_bytes())
    except (OSError, DeserializationError, TufError) as error:
        raise RepositoryError(f"not readable as TUF metadata: {error}", subject=str(path)) from error
