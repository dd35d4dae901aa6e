"""Columns of a CSV or Parquet file, and what they say is right."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_bench.metrics.table import Array
from edge_bench.task_format import DataSection, TaskFile
from edge_contracts.errors import BundleError, ContractError, MissingExtraError

TEXTS = ("cer", "wer")


def table_arrays(task: Path, where: Path, section: DataSection, file: TaskFile) -> Mapping[str, Array]:
    """Return `x` [N, columns] in float32, each column by its name as well, and `y` of the target column. A value that
    is missing is NaN; columns that are no numbers are fed by name only, as the numbers of their sorted values."""
    columns = _parquet(where) if where.suffix.lower() in (".parquet", ".pq") else _csv(where)
    for name in (*section.columns, *([section.target] if section.target else [])):
        if name not in columns:
            known = ", ".join(columns)
            raise ContractError(f"{where.name} has no column {name!r}; it has {known}", subject=f"{task.name} data")
    target = section.target
    chosen = section.columns or tuple(name for name in columns if name != target)
    if not chosen:
        raise BundleError(f"has no column but the target {target!r}", subject=where.name)
    made: dict[str, Array] = {}
    for name in chosen:
        numbers = _numbers(columns[name])
        if numbers is None:
            what = f"column {name!r} holds {columns[name][0]!r}, no numbers; data.columns chooses what is fed"
            raise BundleError(what, subject=where.name)
        made[name] = _narrowed(numbers, name, where.name)
    made["x"] = np.stack([made[name] for name in chosen], axis=1)
    if target is not None:
        if any(value == "" for value in columns[target]):
            raise BundleError(f"the target {target!r} is missing in a row", subject=where.name)
        made["y"] = right(columns[target], file, where.name)
    return made


def _narrowed(numbers: Array, name: str, what: str) -> Array:
    largest = float(np.abs(numbers[np.isfinite(numbers)]).max(initial=0.0))
    if largest > float(np.finfo(np.float32).max) or np.isinf(numbers).any():
        raise BundleError(f"column {name!r} holds numbers beyond float32", subject=what)
    return numbers.astype(np.float32)


def listed_labels(path: Path) -> dict[str, str]:
    """Return what a CSV with columns file and label says of each file."""
    rows = _csv(path)
    if not {"file", "label"} <= rows.keys():
        raise BundleError(f"has columns {', '.join(rows)}; file and label are needed", subject=path.name)
    found = dict(zip(rows["file"], rows["label"], strict=True))
    if len(found) < len(rows["file"]):
        raise BundleError("names a file twice", subject=path.name)
    return found


def _csv(path: Path) -> dict[str, list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [(reader.line_num, row) for reader in [csv.reader(file)] for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BundleError(f"cannot be read: {error}", subject=path.name) from error
    if len(rows) < 2:
        raise BundleError("has no row below the names of its columns", subject=path.name)
    names = [name.strip() for name in rows[0][1]]
    for number, row in rows[1:]:
        if len(row) != len(names):
            raise BundleError(f"line {number} has {len(row)} fields, the first {len(names)}", subject=path.name)
    if len(set(names)) < len(names):
        raise BundleError("names a column twice", subject=path.name)
    return {name: [row[index].strip() for _, row in rows[1:]] for index, name in enumerate(names)}


def _parquet(path: Path) -> dict[str, list[str]]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("parquet", "pyarrow") from error
    try:
        table = pyarrow.parquet.read_table(path)
    except Exception as error:  # its reader raises several of its own
        raise BundleError(f"cannot be read: {str(error)[:300]}", subject=path.name) from error
    return {
        name: ["" if value is None else _text(value) for value in table.column(name).to_pylist()]
        for name in table.column_names
    }


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _numbers(values: Sequence[str]) -> Array | None:
    """Return a column as numbers, NaN where there is none; None where there is something else."""
    try:
        return np.array([float(value) if value.lower() not in _MISSING else np.nan for value in values])
    except ValueError:
        return None


_MISSING = ("", "na", "nan", "null", "none", "?")


def right(values: Sequence[str], file: TaskFile, what: str) -> Array:
    """Return labels as class numbers, numbers or texts: as the task's names of classes and its metrics ask for."""
    if any(one.metric in TEXTS for one in file.outputs):
        return np.array(values, np.str_)
    if file.labels:
        known = {name: index for index, name in enumerate(file.labels)}
        if set(values) <= known.keys():
            return np.array([known[value] for value in values], np.int64)
    numbers = _numbers(values)
    if numbers is None:
        kinds = {name: index for index, name in enumerate(sorted(set(values)))}
        if file.labels:
            unknown = sorted(set(values) - set(file.labels))[0]
            raise BundleError(f"{unknown[:80]!r} is none of the task's labels", subject=what)
        return np.array([kinds[value] for value in values], np.int64)
    if np.isnan(numbers).any():
        raise BundleError("a label is missing", subject=what)
    return numbers.astype(np.int64) if (numbers == np.rint(numbers)).all() else numbers
