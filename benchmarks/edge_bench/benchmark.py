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
from edge_bench.energy.meters import Meter
from edge_bench.environment import environment
from edge_bench.measure import Runner
from edge_bench.protocol import RunnerPlan
from edge_bench.quality import TaskQuality, quality_of
from edge_bench.report import BenchReport, SubjectReport
from edge_bench.scenario import Scenario, Subject
from edge_bench.scenarios.drive import Progress, RawFile, drive_interleaved, memory_of
from edge_bench.scenarios.loadgen import check_loadgen
from edge_bench.scenarios.summary import DrivenSubject, LoadSettings, Passes, ScenarioRun, summarized, thinned
from edge_bench.scenarios.sustain import sustain
from edge_bench.scenarios.sweep import swept
from edge_bench.stats import summarize
from edge_bench.task import Task, check_model

MOST_KEPT = 2000
"""Latencies of each block that the report keeps; `--raw` keeps all."""


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """How a benchmark is run: the engine's threads, the load, settings to sweep, a file for all latencies, a meter
    of energy, the seconds of a run without a pause, whether operators are profiled, and who is told how far it is."""

    threads: int = 1
    load: LoadSettings = field(default_factory=LoadSettings)
    sweep: Mapping[str, Sequence[int | bool]] = field(default_factory=dict)
    raw: RawFile | None = None
    meter: Meter | None = None
    sustain_s: float = 0.0
    operators: bool = False
    progress: Progress = lambda _done, _all, _name: None


def run(name: str, what: Scenario, task: Task | None, how: BenchSettings) -> BenchReport:
    """Measure a scenario. Raises RunnerError when none of its subjects can be measured."""
    machine, began = environment(), time.time()
    if how.load.driver == "loadgen":
        check_loadgen()
    by_path = {str(one.model): one for one in what.subjects}
    plans = swept({one.name: what.plan(one, how.threads) for one in what.subjects}, how.sweep)
    models = {place: by_path[plan.model] for place, plan in plans.items()}
    driven, failures = drive_interleaved(plans, how.load, raw=how.raw, meter=how.meter, progress=how.progress)
    if not driven:
        raise next(iter(failures.values()))
    reports = []
    for place, plan in plans.items():
        if place in failures:
            reports.append(_failed(place, models[place], failures[place]))
            continue
        quality = None if task is None else judged(what, plan, task, models[place])
        one = driven[place]
        found = summarized(one, how.load, _passes(place, plan, how))
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


def _passes(place: str, plan: RunnerPlan, how: BenchSettings) -> Passes:
    """Measure what is not to disturb the blocks: memory, operators, and the run without a pause."""
    memory = memory_of(plan)
    profile = None
    if how.operators:
        with Runner(plan) as runner:
            profile = runner.profile()
    kept = None
    if how.sustain_s:
        kept = sustain(plan, how.sustain_s, lambda share: how.progress(int(100 * share), 100, f"{place}, sustained"))
    return Passes(
        memory=memory, sustained=kept, profile=profile, meter=None if how.meter is None else how.meter.name
    )  # fmt: skip


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


def judged(what: Scenario, plan: RunnerPlan, task: Task, subject: Subject) -> TaskQuality | None:
    """Return what a model's answers to the task's samples are worth. Raises RunnerError and OperatorError."""
    assert what.samples is not None
    out = Path(what.samples).with_name("answers.npz")
    with Runner(plan) as runner:
        opened = runner.opened()
        check_model(task, opened.inputs, opened.outputs)
        runner.predict(what.samples, out)
    with np.load(out, allow_pickle=False) as arrays:
        outputs = [arrays[f"output_{index}"] for index in range(len(opened.outputs))]
    return quality_of(task, opened, outputs, subject.predictor)
