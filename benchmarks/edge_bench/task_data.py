"""Where a task's samples come from: an archive of arrays, a folder of images or sounds, a table, a function of the
user's. Each becomes arrays by name, `x` the samples and `y` what is right, so that a task reads all alike.

Devices never see any of these: they have the bundle. Folders are in `task_folders`, tables in `sources`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.inference.samples import read_arrays
from edge_bench.metrics.table import Array
from edge_bench.sources.tables import table_arrays
from edge_bench.task_folders import image_arrays, wav_arrays
from edge_bench.task_format import DataSection, TaskFile
from edge_bench.user_code import load_function
from edge_contracts.errors import BundleError, ContractError

KINDS = "biufU"
"""Kinds of arrays in a task's archive: numbers, and texts that are right."""


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """A task's arrays by name, of the file or folder `path`; `first` is the array that counts the samples, `count`
    how many it has; `calibration` the prefix of those for calibration, where the task gives one."""

    arrays: Mapping[str, Array]
    path: Path
    first: str
    count: int
    calibration: str | None

    def subject(self, name: str) -> str:
        """Return how errors call an array."""
        return f"{self.path.name}[{name}]"


def load_data(path: Path, file: TaskFile) -> Arrays:
    """Read the data of the task at `path`. Raises ContractError naming the field, BundleError naming file or array,
    OperatorError for a function that fails."""
    if isinstance(file.data, str):
        where, arrays = _called(path, file.data)
        calibration = None
    else:
        where, arrays = _read(path, file.data, file)
        calibration = file.data.calibration
    names = [one.data or name for name, one in file.inputs.items() if one.constant is None and one.feedback is None]
    first = next((name for name in names if name in arrays), "x")
    count = len(arrays[first]) if first in arrays and arrays[first].ndim else 0
    return Arrays(arrays=arrays, path=where, first=first, count=count, calibration=calibration)


def array_of(loaded: Arrays, name: str, *, empty: bool = False) -> Array:
    """Return an array that has a sample at least, or may be `empty`. Raises BundleError."""
    if name not in loaded.arrays:
        raise no_such(loaded, name)
    found = loaded.arrays[name]
    if found.ndim == 0 or (found.shape[0] == 0 and not empty):
        raise BundleError("it has no sample", subject=loaded.subject(name))
    return found


def no_such(loaded: Arrays, name: str, field: str = "") -> BundleError:
    """Return the error of an array that is not there."""
    known = ", ".join(sorted(loaded.arrays)) or "none"
    hint = f"there are {known}" + (f"; {field} names one" if field else "")
    return BundleError("no such array", subject=loaded.subject(name), hint=hint)


def read_training(path: Path, file: TaskFile, name: str, x: Array) -> Array | None:
    """Return the samples for recovery; they may be stored in a narrower type than the evaluation's."""
    if isinstance(file.data, str) or not file.data.train:
        return None
    where = path.parent / file.data.train
    if not _is_file(where):
        raise ContractError(f"no such file: {where}", subject=f"{path.name} data.train", hint=RELATIVE)
    arrays = read_arrays(where, what=where.name, kinds=KINDS)
    loaded = Arrays(arrays=arrays, path=where, first=name, count=0, calibration=None)
    found = array_of(loaded, name)
    if found.shape[1:] != x.shape[1:] or not np.can_cast(found.dtype, x.dtype, "safe"):
        what = f"samples of {found.shape[1:]} {found.dtype}, in {path.name}'s {name} of {x.shape[1:]} {x.dtype}"
        raise BundleError(what, subject=loaded.subject(name))
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise BundleError("contains NaN or infinity", subject=loaded.subject(name))
    return found.astype(x.dtype, copy=False)


RELATIVE = "paths in a task are relative to the task file"


def _read(path: Path, section: DataSection, file: TaskFile) -> tuple[Path, Mapping[str, Array]]:
    kinds = {name: getattr(section, name) for name in ("file", "images", "wav", "table")}
    given = {name: value for name, value in kinds.items() if value is not None}
    if len(given) != 1:
        what = "one of file, images, wav or table says where the samples are"
        raise ContractError(what, subject=f"{path.name} data")
    kind, named = next(iter(given.items()))
    where = path.parent / named
    is_there = _is_file(where) if kind in ("file", "table") else where.is_dir()
    if not is_there:
        thing = "file" if kind in ("file", "table") else "folder"
        raise ContractError(f"no such {thing}: {where}", subject=f"{path.name} data.{kind}", hint=RELATIVE)
    if kind == "file":
        return where, read_arrays(where, what=where.name, kinds=KINDS)
    makers = {"images": image_arrays, "wav": wav_arrays, "table": table_arrays}
    return where, makers[kind](path, where, section, file)


def _called(path: Path, named: str) -> tuple[Path, Mapping[str, Array]]:
    """Return what a function of the user's gives: arrays by name, as an archive would hold them."""
    function = load_function(named, path.parent, f"{path.name} data")
    subject = f"{path.name} data"
    try:
        given = function()
    except (Exception, SystemExit) as error:
        raise BundleError(f"{named}: {type(error).__name__}: {str(error)[:300]}", subject=subject) from error
    if not isinstance(given, Mapping):
        raise BundleError(f"{named} returned {type(given).__name__}, not arrays by name: x, y, ...", subject=subject)
    arrays = {
        str(name): _as_array(value, f"{named} under {str(name)[:80]!r}", subject) for name, value in given.items()
    }
    for name, array in arrays.items():
        if array.dtype.kind not in KINDS:
            raise BundleError(f"{named} returned {array.dtype} under {name!r}", subject=subject)
    return path.parent / named.rpartition(":")[0], arrays


def _as_array(value: Any, what: str, subject: str) -> Array:
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        text = f"{what}: rows of different lengths are no array: {str(error)[:200]}"
        raise BundleError(text, subject=subject) from error


def _is_file(path: Path) -> bool:
    """Return whether there is such a file; there is none of a name that the system would not take."""
    try:
        return path.is_file()
    except OSError:
        return False
