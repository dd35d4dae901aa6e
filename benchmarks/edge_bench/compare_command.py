"""`edgewright bench compare`: the command; the measuring and the statistics are in `compare`."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import click

from edge_agent.offline.random_inputs import parse_shapes
from edge_bench.compare import LatencyComparison, compare_models, compare_reports, sentence
from edge_bench.protocol import RunnerPlan
from edge_bench.report import BenchReport, SubjectReport
from edge_bench.scenario import scenario
from edge_bench.task import Task, read_task
from edge_contracts.codec import decode, plain
from edge_contracts.errors import OperatorError
from edge_contracts.limits import MIB

MAX_REPORT_BYTES = 64 * MIB


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option(
    "--task",
    "task_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Task file with real inputs; default: a bundle's golden samples, else random inputs.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1.0, max=3600.0),
    default=30.0,
    show_default=True,
    help="Measuring time in seconds; at least eight pairs of processes are measured.",
)
@click.option("--threads", type=click.IntRange(min=1, max=256), default=1, show_default=True, help="Inference threads.")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=SIZES",
    help="Sizes of a random input that the models leave open, such as x=1,3,320,320; may be repeated.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Number that the random order starts from.")
@click.option("--json", "json_to", metavar="FILE", help="File to write the comparison to; - is standard output.")
def compare(
    a: str, b: str, task_file: Path | None, seconds: float, threads: int, shapes: tuple[str, ...], seed: int,
    json_to: str | None,
) -> None:  # fmt: skip
    """Compare the latency of A and B: which one is faster, if any.

    Each is a model, a bundle (its first variant), BUNDLE:VARIANT, or a report that `bench --json` wrote. Models are
    measured in pairs of processes, in turns of random order, so that neither other load nor a process's place in
    memory counts; reports are compared as they are. Differences below 1 % are none.

    \b
    Examples:
      edgewright bench compare float.onnx int8.onnx
      edgewright bench compare bundle:float bundle:int8-pc-minmax-rr --seconds 60 --json -
      edgewright bench compare old.json new.json
    """
    reports = [_is_report(name) for name in (a, b)]
    if any(reports):
        if not all(reports):
            raise OperatorError("compare two reports, or two models", subject=a if reports[1] else b)
        found = compare_reports((a, b), (_subject(a), _subject(b)), seed)
    else:
        found = _measured(a, b, task_file, shapes, threads=threads, seconds=seconds, seed=seed)
    if json_to == "-":
        click.echo(json.dumps(plain(found), sort_keys=True))
        return
    if json_to is not None:
        Path(json_to).write_text(json.dumps(plain(found), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    click.echo(sentence(found))


def _measured(
    a: str, b: str, task_file: Path | None, shapes: tuple[str, ...], *, threads: int, seconds: float, seed: int
) -> LatencyComparison:
    task = None if task_file is None else read_task(task_file)
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
        plans = []
        for side, name in (("a", a), ("b", b)):
            folder = Path(work) / side
            folder.mkdir()
            plans.append(_plan(name, task, folder, shapes, threads))
        return compare_models((a, b), (plans[0], plans[1]), seconds, seed)


def _plan(name: str, task: Task | None, folder: Path, shapes: tuple[str, ...], threads: int) -> RunnerPlan:
    path, variant = Path(name), ""
    if not path.exists() and ":" in name:
        head, _, variant = name.rpartition(":")
        path = Path(head)
    what = scenario(path, task, [variant] if variant else [], folder)
    if shapes and what.samples is not None:
        raise OperatorError("the samples have sizes of their own", subject="--shape", hint="leave it out")
    what = replace(what, shapes=parse_shapes(shapes))
    return what.plan(what.subjects[0], threads)


def _is_report(name: str) -> bool:
    return name.endswith(".json") or ".json:" in name


def _subject(name: str) -> SubjectReport:
    """Return the measurement that a name means: FILE.json, or FILE.json:SUBJECT."""
    file, _, wanted = name.partition(".json:")
    path = Path(file if file.endswith(".json") else f"{file}.json")
    try:
        with path.open("rb") as source:
            data = source.read(MAX_REPORT_BYTES + 1)
    except OSError as error:
        raise OperatorError(error.strerror or "cannot be read", subject=str(path)) from error
    report = decode(data, BenchReport, limit=MAX_REPORT_BYTES, what=str(path))
    found = [one for one in report.subjects if not wanted or one.name == wanted]
    if not found:
        known = ", ".join(one.name for one in report.subjects)
        raise OperatorError(f"no subject {wanted[:80]!r}", subject=str(path), hint=f"known: {known}")
    return found[0]
