"""Imports that were asked for while no agent ran: the folders are kept for its next start."""

from __future__ import annotations

from pathlib import Path

from edge_contracts.codec import decode
from edge_contracts.errors import ContractError
from edge_contracts.limits import MAX_DOCUMENT_BYTES


def read_imports(path: Path) -> list[str]:
    """Return the folders that were to be imported at the next start."""
    try:
        return decode(path.read_bytes(), list[str], limit=MAX_DOCUMENT_BYTES, what="imports")
    except (OSError, ContractError):
        return []
