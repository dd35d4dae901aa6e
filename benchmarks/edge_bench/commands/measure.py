"""`edgewright bench measure`: the command; the measuring is in `edge_bench.benchmark`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
from rich.console import Console

from edge_bench.benchmark import run
from edge_bench.commands.options import Feeding, feeding_options, json_option, wrote
from edge_bench.decisions.history import keep
from edge_bench.report import table


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", metavar="MODEL|BUNDLE", type=click.Path(path_type=Path))
@click.option("--variants", default="", metavar="A,B", help="Variants of a bundle to measure; default: all.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.05, max=600.0),
    default=3.0,
    show_default=True,
    help="Measuring time per model, in seconds.",
)
@feeding_options
@click.option(
    "--history",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to keep the report in, for `bench history`; default: not kept.",
)
@json_option
def measure(
    path: Path, variants: str, seconds: float, feeding: Feeding, history: Path | None, json_to: str | None
) -> None:
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
    wanted = [name.strip() for name in variants.split(",") if name.strip()]
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
        what = feeding.scenario(path, wanted, Path(work))
        report = run(path.name, what, feeding.task, threads=feeding.threads, seconds=seconds)
    if history is not None:
        keep(report, history)
    if wrote(report, json_to):
        return
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table(report))
    if not report.stable:
        click.echo(
            "Unstable: rounds differ by more than 5 %; close other programs or fix the CPU frequency, and repeat.",
            err=True,
        )
