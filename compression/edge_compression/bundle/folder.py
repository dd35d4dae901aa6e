"""The folder of a bundle that is being made: nothing of it is there unless all of it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_contracts.errors import OperatorError


@contextmanager
def fresh_folder(out: Path, *, replace: bool) -> Iterator[Path]:
    """Yield an empty folder beside `out` that takes its place when the block ends well; otherwise nothing remains.

    Raises OperatorError when `out` has content and `replace` is off, or cannot be written.
    """
    check_free(out, replace=replace)
    making = out.parent / f".{out.name}.making"
    try:
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
    except OSError as error:
        raise OperatorError(error.strerror or "cannot be written", subject=str(out)) from error
    try:
        yield making
        if out.exists():
            shutil.rmtree(out)
        making.rename(out)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def check_free(out: Path, *, replace: bool) -> None:
    """Raise OperatorError unless `out` is absent, an empty folder, or may be replaced."""
    if out.exists() and not out.is_dir():
        raise OperatorError("is not a folder", subject=str(out))
    if out.is_dir() and any(out.iterdir()) and not replace:
        raise OperatorError("the folder is not empty", subject=str(out), hint="use --force to replace it")
