"""One benchmark from a scenario to its report: every subject measured in turns, its quality judged on the same samples.

What is fed is in `scenario`, the measuring in `measure`, the records in `report`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_agent.bundle import hash_file
from edge_bench.environment import environment
from edge_bench.measure import Measurement, Runner, measure_interleaved
from edge_bench.quality import TaskQuality, quality_of
from edge_bench.report import BenchReport, SubjectReport, subject_report
from edge_bench.scenario import Scenario, Subject
from edge_bench.task import Task, check_model


def run(name: str, what: Scenario, task: Task | None, *, threads: int, seconds: float) -> BenchReport:
    """Measure a scenario. Raises RunnerError when none of its subjects can be measured."""
    machine, began = environment(), time.time()
    plans = {subject.name: what.plan(subject, threads) for subject in what.subjects}
    measured, failures = measure_interleaved(plans, seconds=seconds)
    if not measured:
        raise next(iter(failures.values()))
    subjects: list[SubjectReport] = []
    for subject in what.subjects:
        size, digest = subject.model.stat().st_size, hash_file(subject.model)
        if subject.name in failures:
            error = str(failures[subject.name])
            subjects.append(SubjectReport(name=subject.name, size=size, sha256=digest, error=error))
            continue
        quality = None if task is None else judged(what, subject, task, threads)
        subjects.append(subject_report(subject.name, size, digest, measured[subject.name], quality))
    return BenchReport(
        subject=name,
        inputs=_fed(what, task, measured),
        threads=threads,
        seconds=seconds,
        metric=None if task is None else task.metric,
        samples=None if task is None else task.count,
        stable=all(one.latency is None or one.latency.stable for one in subjects),
        environment=machine,
        subjects=tuple(subjects),
        measured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
    )


def _fed(what: Scenario, task: Task | None, measured: Mapping[str, Measurement]) -> str:
    """Say what was fed: without samples a latency means nothing but beside its sizes."""
    if what.samples is not None:
        return "golden samples" if task is None else task.path.name
    fed = next(iter(measured.values())).loaded.fed
    return f"random inputs {', '.join(f'{one.name} {one.dtype} {list(one.shape)}' for one in fed)}"


def judged(what: Scenario, subject: Subject, task: Task, threads: int) -> TaskQuality | None:
    """Return what the subject's answers to the task's samples are worth. Raises RunnerError and OperatorError."""
    assert what.samples is not None
    out = Path(what.samples).with_name("answers.npz")
    with Runner(what.plan(subject, threads)) as runner:
        opened = runner.opened()
        check_model(task, opened.inputs, opened.outputs)
        runner.predict(what.samples, out)
    with np.load(out, allow_pickle=False) as arrays:
        outputs = [arrays[f"output_{index}"] for index in range(len(opened.outputs))]
    return quality_of(task, opened, outputs)
