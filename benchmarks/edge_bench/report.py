"""What a benchmark says: the records of its JSON, raw samples included. Other forms are in `edge_bench.outputs`."""

from __future__ import annotations

from edge_bench.environment import Environment
from edge_bench.quality import TaskQuality
from edge_bench.scenarios.summary import ScenarioRun
from edge_bench.stats import LatencySummary
from edge_contracts.codec import StrictRecord

REPORT_SCHEMA = 2
"""2 has `run`, `quality`, `measured_at` and `seed`; reports of 1 are read as well."""


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
    run: ScenarioRun | None = None
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
    seed: int = 0
