"""Imports with stand-ins: a module that a library imports and a process never uses is not loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def instead(stand_ins: dict[str, ModuleType | None]) -> Iterator[None]:
    """Within this, importing one of these modules gives its stand-in, unless it is loaded already; None fails."""
    absent = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(absent)  # type: ignore[arg-type]  # None is what the import system knows as "not to be found"
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)
