"""How a model came to be as fast as it is: reports kept in a folder, each compared with the one before it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from edge_bench.compare import compare_reports
from edge_bench.report import BenchReport, SubjectReport
from edge_contracts.codec import StrictRecord
from edge_contracts.errors import OperatorError

Change = Literal["first", "faster", "slower", "same", "other machine", "failed"]

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class Entry(StrictRecord, frozen=True, kw_only=True):
    """One subject in one report. `ratio` is its latency over that in the report before, with an interval; "same" where
    that holds 1 or the ratio is within 1 %. Latencies in milliseconds, memory in megabytes."""

    file: str
    measured_at: str
    subject: str
    change: Change
    p50_ms: float | None = None
    p50_low_ms: float | None = None
    p50_high_ms: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    score: float | None = None
    peak_memory_mb: float | None = None
    size: int


class History(StrictRecord, frozen=True, kw_only=True):
    """All entries, those of a subject together and the oldest first."""

    schema: int = 1
    entries: tuple[Entry, ...]


def keep(report: BenchReport, folder: Path) -> Path:
    """Write a report into a folder under a name of its own that sorts by time. Raises OperatorError."""
    stamp = report.measured_at.replace("-", "").replace(":", "")
    stem = f"{stamp}-{_UNSAFE.sub('_', report.subject)[:60]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1000):
            path = folder / (f"{stem}.json" if number == 0 else f"{stem}.{number}.json")
            try:
                with path.open("xb") as out:
                    out.write(msgspec.json.encode(report) + b"\n")
            except FileExistsError:
                continue
            return path
    except OSError as error:
        raise OperatorError(error.strerror or "cannot be written", subject=str(folder)) from error
    raise OperatorError("holds a thousand reports of this second", subject=str(folder))


def history_of(reports: Iterable[tuple[str, BenchReport]], seed: int = 0) -> History:
    """Return what became of each subject over the reports, given by file name; order is that of `measured_at`."""
    found: dict[str, list[Entry]] = {}
    last: dict[str, tuple[BenchReport, SubjectReport]] = {}
    for file, report in sorted(reports, key=lambda one: (one[1].measured_at, one[0])):
        for subject in report.subjects:
            entry = _entry(file, report, subject, last.get(subject.name), seed)
            found.setdefault(subject.name, []).append(entry)
            if subject.error is None:
                last[subject.name] = report, subject
    return History(entries=tuple(entry for name in sorted(found) for entry in found[name]))


def _entry(
    file: str, report: BenchReport, one: SubjectReport, before: tuple[BenchReport, SubjectReport] | None, seed: int
) -> Entry:
    plain = Entry(
        file=file,
        measured_at=report.measured_at,
        subject=one.name,
        change="first",
        p50_ms=None if one.latency is None else one.latency.p50,
        p50_low_ms=None if one.latency is None else one.latency.p50_interval.low,
        p50_high_ms=None if one.latency is None else one.latency.p50_interval.high,
        score=one.score,
        peak_memory_mb=one.peak_memory_mb,
        size=one.size,
    )
    if one.error is not None:
        return msgspec.structs.replace(plain, change="failed")
    if before is None:
        return plain
    if before[0].environment.cpu != report.environment.cpu or before[0].threads != report.threads:
        return msgspec.structs.replace(plain, change="other machine")
    found = compare_reports((before[1].name, one.name), (before[1], one), seed)
    change: Change = {"none": "same", "a": "slower", "b": "faster"}[found.verdict]  # type: ignore[assignment]
    return msgspec.structs.replace(plain, change=change, ratio=found.ratio, low=found.low, high=found.high)


def files_in(paths: Sequence[Path]) -> list[Path]:
    """Return the reports that files and folders stand for. Raises OperatorError naming what is not there."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(path.glob("*.json"))
        elif path.is_file():
            found.append(path)
        else:
            raise OperatorError("no such report or folder", subject=str(path))
    if not found:
        hint = "edgewright bench measure MODEL --history FOLDER keeps reports there"
        raise OperatorError("holds no reports", subject=", ".join(map(str, paths)), hint=hint)
    return found
