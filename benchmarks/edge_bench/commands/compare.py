"""`edgewright bench compare`: the command; the measuring and the statistics are in `edge_bench.compare`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from edge_bench.commands.options import (
    Feeding,
    feeding_options,
    json_option,
    named_variant,
    read_report,
    seed_option,
    wrote,
)
from edge_bench.compare import LatencyComparison, compare_models, compare_reports, sentence
from edge_bench.protocol import RunnerPlan
from edge_bench.report import SubjectReport
from edge_contracts.errors import OperatorError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option(
    "--seconds",
    type=click.FloatRange(min=1.0, max=3600.0),
    default=30.0,
    show_default=True,
    help="Measuring time in seconds; at least eight pairs of processes are measured.",
)
@feeding_options
@seed_option
@json_option
def compare(a: str, b: str, seconds: float, feeding: Feeding, seed: int, json_to: str | None) -> None:
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
        found = _measured((a, b), feeding, seconds=seconds, seed=seed)
    if not wrote(found, json_to):
        click.echo(sentence(found))


def _measured(names: tuple[str, str], feeding: Feeding, *, seconds: float, seed: int) -> LatencyComparison:
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
        first, second = (_plan(name, feeding, Path(work) / str(side)) for side, name in enumerate(names))
        return compare_models(names, (first, second), seconds, seed)


def _plan(name: str, feeding: Feeding, folder: Path) -> RunnerPlan:
    folder.mkdir()
    path, variants = named_variant(name)
    what = feeding.scenario(path, variants, folder)
    return what.plan(what.subjects[0], feeding.threads)


def _is_report(name: str) -> bool:
    return name.endswith(".json") or ".json:" in name


def _subject(name: str) -> SubjectReport:
    """Return the measurement that a name means: FILE.json, or FILE.json:SUBJECT."""
    file, _, wanted = name.partition(".json:")
    path = Path(file if file.endswith(".json") else f"{file}.json")
    report = read_report(path)
    found = [one for one in report.subjects if not wanted or one.name == wanted]
    if not found:
        known = ", ".join(one.name for one in report.subjects)
        raise OperatorError(f"no subject {wanted[:80]!r}", subject=str(path), hint=f"known: {known}")
    return found[0]
