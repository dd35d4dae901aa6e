"""Imports that leave out what a process never uses: memory of a device that stays is spent by its imports."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from types import ModuleType

from edge_io.stand_in_imports import instead


def import_lean() -> None:
    """Import `msgspec`, `asyncio` and `hashlib` without what they only try to import, unless it is loaded already.

    OpenSSL is 4 MB that a process has no use for which speaks no TLS by itself and hashes a model once; TLS can be
    spoken all the same, but not by asyncio. `typing_extensions`, where something installed it, is 2.5 MB for what this
    Python's own `typing` has.
    """
    absent = ["ssl", "typing_extensions"]
    if any(map(find_spec, ("_sha2", "_sha256"))):  # some systems' Python has no hashes of its own
        absent.append("_hashlib")
    with instead(dict.fromkeys(absent)):
        for module in ("msgspec", "asyncio", "hashlib"):
            importlib.import_module(module)


def import_numpy() -> None:
    """Import `numpy` without the docstrings that it writes for what is made in C, a twelfth of its import: nobody asks
    a worker for help."""
    names = [f"numpy._core.{docs}" for docs in ("_add_newdocs", "_add_newdocs_scalars")]
    with instead({name: ModuleType(name) for name in names}):
        importlib.import_module("numpy")
