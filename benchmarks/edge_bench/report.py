"""What a benchmark says: the records of its JSON, raw samples included, and the table on the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_bench.environment import Environment
from edge_bench.measure import Measurement
from edge_bench.quality import TaskQuality
from edge_bench.stats import LatencySummary
from edge_contracts.codec import StrictRecord

if TYPE_CHECKING:
    from rich.table import Table

REPORT_SCHEMA = 1


class SubjectReport(StrictRecord, frozen=True, kw_only=True):
    """One model: times in milliseconds, memory in megabytes a process grew by, size in bytes. `error` instead of all
    numbers when it could not be measured. `rounds_ms` are the raw latencies of each round."""

    name: str
    size: int
    sha256: str
    engine: str | None = None
    engine_version: str | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    latency: LatencySummary | None = None
    peak_memory_mb: float | None = None
    score: float | None = None
    quality: TaskQuality | None = None
    error: str | None = None
    rounds_ms: tuple[tuple[float, ...], ...] = ()


class BenchReport(StrictRecord, frozen=True, kw_only=True):
    """One benchmark run. `inputs` says what was fed: task, golden or random samples; `measured_at` is in UTC."""

    schema: int = REPORT_SCHEMA
    subject: str
    inputs: str
    threads: int
    seconds: float
    metric: str | None
    samples: int | None
    stable: bool
    environment: Environment
    subjects: tuple[SubjectReport, ...]
    measured_at: str = ""


def subject_report(
    name: str, size: int, sha256: str, measured: Measurement, quality: TaskQuality | None
) -> SubjectReport:
    """Return the record of one measured model."""
    return SubjectReport(
        name=name,
        size=size,
        sha256=sha256,
        engine=measured.loaded.engine,
        engine_version=measured.loaded.engine_version,
        load_ms=measured.loaded.load_ms,
        first_ms=measured.loaded.first_ms,
        latency=measured.latency,
        peak_memory_mb=measured.loaded.peak_memory_mb,
        score=None if quality is None else quality.score,
        quality=quality,
        rounds_ms=tuple(tuple(float(value) for value in values) for values in measured.rounds),
    )


def table(report: BenchReport) -> Table:
    """Return the console's table."""
    from rich.table import Table

    columns = ("model", "kB", "load ms", "first ms", "p50 ms", "95 % interval", "p90", "p99", "1/s", "peak MB", "cv")
    scored = report.metric is not None
    drawn = Table(*columns, *([report.metric or ""] if scored else []), "", title=f"{report.subject}, {report.inputs}")
    for one in report.subjects:
        drawn.add_row(*_row(one, scored=scored))
    return drawn


def _row(one: SubjectReport, *, scored: bool) -> list[str]:
    latency = one.latency
    if latency is None or one.load_ms is None or one.first_ms is None or one.peak_memory_mb is None:
        return [one.name, f"{one.size / 1e3:.0f}", *[""] * (10 if scored else 9), f"failed: {one.error}"]
    return [
        one.name,
        f"{one.size / 1e3:.0f}",
        f"{one.load_ms:.1f}",
        f"{one.first_ms:.2f}",
        f"{latency.p50:.3f}",
        f"{latency.p50_interval.low:.3f} to {latency.p50_interval.high:.3f}",
        f"{latency.p90:.3f}",
        f"{latency.p99:.3f}",
        f"{latency.per_second:.0f}",
        f"{one.peak_memory_mb:.1f}",
        f"{latency.cv:.1%}",
        *([f"{one.score:.4f}" if one.score is not None else ""] if scored else []),
        "" if latency.stable else "unstable",
    ]
