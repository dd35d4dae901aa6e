"""Imports that leave out what a process never uses: memory of a device that stays is spent by its imports."""

from __future__ import annotations

import importlib
from importlib.util import find_spec

from edge_io.stand_in_imports import instead


def leave_openssl_out() -> None:
    """Import `asyncio` and `hashlib` without OpenSSL, unless it is loaded already: 4 MB that a process has no use for
    which speaks no TLS by itself and hashes a model once. TLS can be spoken all the same, but not by asyncio."""
    absent = ["ssl"]
    if any(map(find_spec, ("_sha2", "_sha256"))):  # some systems' Python has no hashes of its own
        absent.append("_hashlib")
    with instead(dict.fromkeys(absent)):
        importlib.import_module("asyncio")
        importlib.import_module("hashlib")
