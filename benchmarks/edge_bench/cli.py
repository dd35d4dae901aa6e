"""`edgewright bench`: measure a model or a bundle's variants, in turns, on the agent's own engines; compare two."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from rich.console import Console

from edge_agent.bundle import hash_file
from edge_agent.offline.random_inputs import parse_shapes
from edge_bench.compare_command import compare
from edge_bench.environment import environment
from edge_bench.judged import first_score
from edge_bench.measure import Measurement, Runner, measure_interleaved
from edge_bench.report import BenchReport, SubjectReport, subject_report, table
from edge_bench.scenario import Scenario, Subject, scenario
from edge_bench.task import Task, check_model, read_task
from edge_contracts.codec import plain
from edge_contracts.errors import OperatorError


class _MeasuringGroup(click.Group):
    """A group in which what is no command is a model or bundle to measure."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["measure", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_MeasuringGroup, context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """Measure a model or bundle, or compare two.

    \b
    Examples:
      edgewright bench model.onnx
      edgewright bench compare float.onnx int8.onnx
    """


@bench.command()
@click.argument("path", metavar="MODEL|BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--task",
    "task_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Task file with real inputs and labels; also measures quality.",
)
@click.option(
    "--json", "json_to", metavar="FILE", help="File to write the report with raw samples to; - is standard output."
)
@click.option("--variants", default="", metavar="A,B", help="Variants of a bundle to measure; default: all.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.05, max=600.0),
    default=3.0,
    show_default=True,
    help="Measuring time per model, in seconds.",
)
@click.option("--threads", type=click.IntRange(min=1, max=256), default=1, show_default=True, help="Inference threads.")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=SIZES",
    help="Sizes of a random input that the model leaves open, such as x=1,3,320,320; may be repeated.",
)
def measure(
    path: Path, task_file: Path | None, json_to: str | None, variants: str, seconds: float, threads: int,
    shapes: tuple[str, ...],
) -> None:  # fmt: skip
    """Measure latency, memory and quality of a model or bundle.

    Reports load time, first inference, latency, throughput and peak memory; a bundle's variants are measured
    interleaved. Without a task, a bundle gets its golden samples and a model random inputs of its declared sizes;
    those that it leaves open, but for a batch of one, are given by --shape. A latency whose rounds differ by more than
    5 % is marked unstable. The word `measure` may be left out.

    \b
    Examples:
      edgewright bench measure model.onnx --seconds 5
      edgewright bench measure detector.onnx --shape images=1,3,320,320
      edgewright bench measure bundle --task watch_har.toml --variants int8-pc-minmax-rr,float --json report.json
    """
    task = read_task(task_file) if task_file is not None else None
    wanted = [name.strip() for name in variants.split(",") if name.strip()]
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
        what = replace(scenario(path, task, wanted, Path(work)), shapes=parse_shapes(shapes))
        if shapes and what.samples is not None:
            raise OperatorError("the samples have sizes of their own", subject="--shape", hint="leave it out")
        report = run(path.name, what, task, threads=threads, seconds=seconds)
    if json_to == "-":
        click.echo(json.dumps(plain(report), sort_keys=True))
        return
    if json_to is not None:
        _write(Path(json_to), report)
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table(report))
    if not report.stable:
        click.echo(
            "Unstable: rounds differ by more than 5 %; close other programs or fix the CPU frequency, and repeat.",
            err=True,
        )


def run(name: str, what: Scenario, task: Task | None, *, threads: int, seconds: float) -> BenchReport:
    """Measure a scenario. Raises RunnerError when it is one model and that cannot be measured."""
    machine = environment()
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
        quality = None if task is None else _score(what, subject, task, threads)
        subjects.append(subject_report(subject.name, size, digest, measured[subject.name], quality))
    fed = _random(measured) if what.samples is None else ("golden samples" if task is None else task.path.name)
    return BenchReport(
        subject=name,
        inputs=fed,
        threads=threads,
        seconds=seconds,
        metric=None if task is None else task.metric,
        samples=None if task is None else task.count,
        stable=all(one.latency is None or one.latency.stable for one in subjects),
        environment=machine,
        subjects=tuple(subjects),
    )


def _random(measured: Mapping[str, Measurement]) -> str:
    """Say what was fed: without samples a latency means nothing but beside its sizes."""
    fed = next(iter(measured.values())).loaded.fed
    return f"random inputs {', '.join(f'{one.name} {one.dtype} {list(one.shape)}' for one in fed)}"


def _score(what: Scenario, subject: Subject, task: Task, threads: int) -> float:
    assert what.samples is not None
    out = what.samples.with_name("answers.npz")
    with Runner(what.plan(subject, threads)) as runner:
        opened = runner.opened()
        check_model(task, opened.inputs, opened.outputs)
        runner.predict(what.samples, out)
    with np.load(out, allow_pickle=False) as arrays:
        outputs = [arrays[f"output_{index}"] for index in range(len(opened.outputs))]
    return first_score(task, opened, outputs)


def _write(path: Path, report: BenchReport) -> None:
    try:
        path.write_text(json.dumps(plain(report), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise OperatorError(error.strerror or "cannot be written", subject=str(path)) from error


bench.add_command(compare)
