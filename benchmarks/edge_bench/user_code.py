"""Functions of the user's that a task names, `FILE.py:function`: loaded from beside the task, on the engineer's side.

They run with the rights of whoever compresses. No bundle carries them, and no device runs them.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_contracts.errors import OperatorError


def load_function(named: str, folder: Path, what: str) -> Callable[..., Any]:
    """Return the function of a file in `folder`. Raises OperatorError naming what is missing or what it raised."""
    file, _, name = named.rpartition(":")
    path = folder / file
    if not file.endswith(".py") or not name.isidentifier():
        raise OperatorError(f"{named[:80]!r} is no FILE.py:function", subject=what)
    if not path.is_file():
        raise OperatorError(f"no such file: {path}", subject=what, hint="paths in a task are relative to the task file")
    spec = importlib.util.spec_from_file_location(f"_edgewright_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise OperatorError(f"{file}: {type(error).__name__}: {str(error)[:300]}", subject=what) from error
    finally:
        sys.path.remove(str(path.parent))
    function = getattr(module, name, None)
    if not callable(function):
        raise OperatorError(f"{file} has no function {name!r}", subject=what)
    found: Callable[..., Any] = function
    return found
