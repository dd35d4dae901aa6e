"""One benchmark from a scenario to its report: every subject driven in turns, its quality judged on the same samples.

What is fed is in `scenario`, the load in `scenarios`, the records in `report`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_agent.bundle import hash_file
from edge_bench.environment import environment
from edge_bench.measure import Runner
from edge_bench.protocol import RunnerPlan
from edge_bench.quality import TaskQuality, quality_of
from edge_bench.report import BenchReport, SubjectReport
from edge_bench.scenario import Scenario, Subject
from edge_bench.scenarios.drive import Progress, RawFile, drive_interleaved, memory_of
from edge_bench.scenarios.loadgen import check_loadgen
from edge_bench.scenarios.summary import DrivenSubject, LoadSettings, ScenarioRun, summarized, thinned
from edge_bench.scenarios.sweep import swept
from edge_bench.stats import summarize
from edge_bench.task import Task, check_model

MOST_KEPT = 2000
"""Latencies of each block that the report keeps; `--raw` keeps all."""


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """How a benchmark is run: the engine's threads, the load, settings to sweep, a file for all latencies, and who is
    told how far it is."""

    threads: int = 1
    load: LoadSettings = field(default_factory=LoadSettings)
    sweep: Mapping[str, Sequence[int | bool]] = field(default_factory=dict)
    raw: RawFile | None = None
    progress: Progress = lambda _done, _all, _name: None


def run(name: str, what: Scenario, task: Task | None, how: BenchSettings) -> BenchReport:
    """Measure a scenario. Raises RunnerError when none of its subjects can be measured."""
    machine, began = environment(), time.time()
    if how.load.driver == "loadgen":
        check_loadgen()
    by_path = {str(one.model): one for one in what.subjects}
    plans = swept({one.name: what.plan(one, how.threads) for one in what.subjects}, how.sweep)
    models = {place: by_path[plan.model] for place, plan in plans.items()}
    driven, failures = drive_interleaved(plans, how.load, raw=how.raw, progress=how.progress)
    if not driven:
        raise next(iter(failures.values()))
    reports = []
    for place, plan in plans.items():
        if place in failures:
            reports.append(_failed(place, models[place], failures[place]))
            continue
        quality = None if task is None else judged(what, plan, task)
        one = driven[place]
        found = summarized(one, how.load, memory_of(plan))
        reports.append(_report(place, models[place], one, found, quality))
    return BenchReport(
        subject=name,
        inputs=_fed(what, task, driven),
        threads=how.threads,
        seconds=how.load.seconds,
        metric=None if task is None else task.metric,
        samples=None if task is None else task.count,
        stable=all(one.run is None or one.run.stable for one in reports),
        environment=machine,
        subjects=tuple(reports),
        measured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        seed=how.load.seed,
    )


def _failed(place: str, subject: Subject, error: Exception) -> SubjectReport:
    size, digest = subject.model.stat().st_size, hash_file(subject.model)
    return SubjectReport(name=place, size=size, sha256=digest, error=str(error))


def _report(
    place: str, subject: Subject, one: DrivenSubject, found: ScenarioRun, quality: TaskQuality | None
) -> SubjectReport:
    loaded = one.loaded
    return SubjectReport(
        name=place,
        size=subject.model.stat().st_size,
        sha256=hash_file(subject.model),
        engine=loaded.engine,
        engine_version=loaded.engine_version,
        load_ms=loaded.load_ms,
        first_ms=loaded.first_ms,
        latency=summarize(one.latencies),
        peak_memory_mb=loaded.peak_memory_mb if found.memory is None else found.memory.peak_mb,
        score=None if quality is None else quality.score,
        quality=quality,
        run=found,
        rounds_ms=thinned(one.latencies, MOST_KEPT),
    )


def _fed(what: Scenario, task: Task | None, driven: Mapping[str, DrivenSubject]) -> str:
    """Say what was fed: without samples a latency means nothing but beside its sizes."""
    if what.samples is not None:
        return "golden samples" if task is None else task.path.name
    fed = next(iter(driven.values())).loaded.fed
    return f"random inputs {', '.join(f'{one.name} {one.dtype} {list(one.shape)}' for one in fed)}"


def judged(what: Scenario, plan: RunnerPlan, task: Task) -> TaskQuality | None:
    """Return what a model's answers to the task's samples are worth. Raises RunnerError and OperatorError."""
    assert what.samples is not None
    out = Path(what.samples).with_name("answers.npz")
    with Runner(plan) as runner:
        opened = runner.opened()
        check_model(task, opened.inputs, opened.outputs)
        runner.predict(what.samples, out)
    with np.load(out, allow_pickle=False) as arrays:
        outputs = [arrays[f"output_{index}"] for index in range(len(opened.outputs))]
    return quality_of(task, opened, outputs)
