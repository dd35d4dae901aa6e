"""`edgewright compress`: the command line of the search. Progress is on stderr, the result on stdout."""

from __future__ import annotations

import json
import shlex
import time
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_compression.cli.option_types import Duration, Loss, Size
from edge_compression.options import MEMORY_MB, Options, Work

if TYPE_CHECKING:
    from edge_contracts.manifest import Manifest

NEEDED = ("jinja2", "onnx", "onnxslim", "optuna", "rich", "yaml")
"""What the extra `compress` installs and --help does without: looked for at once, loaded when there is work."""

for _module in NEEDED:
    if find_spec(_module) is None:
        raise ModuleNotFoundError(f"No module named {_module!r}", name=_module)

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("task_file", metavar="TASK.toml", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--profile", required=True, help="Device profile: a name such as pi-4, or a .toml file.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write the bundle to.")
@click.option("--report", type=click.Path(path_type=Path), help="HTML report to write; default: OUT.html.")
@click.option("--name", default=None, help="Model family; default: the task's name.")
@click.option("--version", default="1.0.0", show_default=True, help="Version of the release.")
@click.option(
    "--max-drop", type=Loss(), default=None, show_default="0.5 points, 5% of an error, 0.5dB",
    help="Maximum loss of each output without a max_drop of its own: points (0.5), percent of an error (5%) or dB "
    "(0.3dB); a plain number is in the metric's unit.",
)  # fmt: skip
@click.option(
    "--confidence", type=click.FloatRange(0.5, 0.999), default=Options().confidence, show_default=True,
    help="One-sided confidence that a variant's loss stays within --max-drop.",
)  # fmt: skip
@click.option("--accept-undecided", is_flag=True, help="Keep variants whose loss the samples cannot resolve.")
@click.option("--max-size", type=Size(), help="Maximum variant size in bytes, e.g. 70k or 1.5M.")
@click.option(
    "--max-latency",
    type=click.FloatRange(min=0, min_open=True),
    help="Maximum latency in ms, measured on this machine.",
)
@click.option(
    "--max-memory", type=click.FloatRange(min=0, min_open=True), help="Maximum memory in MB, measured on this machine."
)
@click.option(
    "--budget",
    type=Duration(),
    help="Work of the search, e.g. 90s or 10m of an idle machine.",
    show_default="by model size",
)
@click.option(
    "--variations",
    type=click.IntRange(min=0),
    default=48,
    show_default=True,
    help="Maximum number of recipe variations to try.",
)
@click.option(
    "--memory",
    type=click.FloatRange(min=256),
    default=MEMORY_MB,
    show_default=True,
    help="Memory limit of the search in MB.",
)
@click.option(
    "--calib", type=click.IntRange(min=1), default=256, show_default=True, help="Maximum number of calibration samples."
)
@click.option(
    "--eval", "evaluation", type=click.IntRange(min=1), default=5000, show_default=True,
    help="Maximum number of evaluation samples.",
)  # fmt: skip
@click.option("--recipes", type=_FOLDER, help="Folder of recipe files; default: the built-in recipes.")
@click.option("--work", type=_FOLDER, help="Folder for intermediate models and the search state; default: OUT.search.")
@click.option("--storage", help="Database URL to share a search between machines; default: a file in --work.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option("--verbose", is_flag=True, help="Print every step, every candidate and every note.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document with the ladder and all candidates.")
def compress(
    task_file: Path, profile: str, out: Path, work: Path | None, storage: str | None, recipes: Path | None,
    as_json: bool, verbose: bool, **rest: Any,
) -> None:  # fmt: skip
    """Compress a trained model into a bundle of measured variants.

    Builds candidates from recipes, scores them on the task's data with and without engine optimizations, and times
    the best ones interleaved with the original. Candidates that lose more than --max-drop or are dominated are left
    out; the report says why. An interrupted search continues when the command is run again.

    \b
    Examples:
      edgewright compress watch_har.toml --profile pi-4 --max-drop 0.5 --out har-1.0.0
      edgewright compress kws.toml --profile x86-gateway --out kws --budget 10m --json > report.json
      edgewright compress kws.toml --profile pi-4 --out kws --storage postgresql://fleet@db/searches --work /tmp/kws

    \b
    Exit codes: 0 something was gained; 4 nothing was, and the bundle holds the float original alone; 2 and 3 an error
    of what was asked or given, which is named.
    """
    from rich.console import Console

    from edge_bench.task import read_task
    from edge_compression import api
    from edge_compression.bundle.writer import check_free
    from edge_compression.cli.few_lines import FewLines
    from edge_compression.report.gains import NOTHING_GAINED, gained
    from edge_compression.search.progress import Lines, LiveFront

    check_free(out, replace=rest["force"])
    task = read_task(task_file)
    options = _options(rest)
    kept = Work(folder=work or out.with_name(f"{out.name}.search"), storage=storage)
    command = _command(task_file, profile, options, {**rest, "out": out})
    console = Console(stderr=True)
    logged = Lines(console) if verbose else FewLines(lambda text: click.echo(text, err=True), time.monotonic)
    live: AbstractContextManager[Any] = LiveFront(console) if console.is_terminal else nullcontext(logged)
    with live as progress:
        front = api.compress(
            task,
            profile,
            out=out,
            options=options,
            recipes=recipes,
            work=kept,
            release=api.Release(name=rest["name"], version=rest["version"], command=command),
            replace=rest["force"],
            progress=progress,
        )
    page = rest["report"] or out.with_name(f"{out.name}.html")
    page.write_text(front.html, encoding="utf-8")
    if work is None and storage is None:
        api.forget(kept)
    _show(front, page, as_json=as_json, verbose=verbose)
    if not gained(front.report):
        raise SystemExit(NOTHING_GAINED)


def _options(rest: dict[str, Any]) -> Options:
    return Options(
        max_drop=rest["max_drop"],
        confidence=rest["confidence"],
        accept_undecided=rest["accept_undecided"],
        max_size=rest["max_size"],
        max_latency_ms=rest["max_latency"],
        max_memory_mb=rest["max_memory"],
        budget_s=rest["budget"],
        variations=rest["variations"],
        calibration=rest["calib"],
        evaluation=rest["evaluation"],
        memory_mb=rest["memory"],
    )


def _command(task_file: Path, profile: str, options: Options, rest: dict[str, Any]) -> str:
    """Return a command that makes the same again; paths of this machine are cut to their names."""
    words = ["edgewright", "compress", task_file.name, "--profile", Path(profile).name, "--out", rest["out"].name]
    words += ["--max-drop", str(options.max_drop)] if options.max_drop is not None else []
    words += ["--version", rest["version"], "--calib", str(options.calibration)]
    words += ["--eval", str(options.evaluation), "--confidence", f"{options.confidence:g}"]
    words += ["--variations", str(options.variations)]
    for name, value in (
        ("--max-size", options.max_size),
        ("--max-latency", options.max_latency_ms),
        ("--max-memory", options.max_memory_mb),
        ("--budget", options.budget_s),
    ):
        words += [] if value is None else [name, f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join([*words, *(["--accept-undecided"] if options.accept_undecided else [])])


def _download(manifest: Manifest) -> str:
    """Say what a device downloads that has no release of this model yet, and how much of it is not the model."""
    variants = sum(one.size for one in manifest.variants)
    proof = sum(manifest.file(one.file).size for one in (manifest.golden, manifest.probe) if one is not None)
    whole = f"{manifest.total_bytes / 1e3:.0f} kB to download"
    parts = f"{len(manifest.variants)} variants {variants / 1e3:.0f} kB, samples that prove them {proof / 1e3:.0f} kB"
    return f"{whole}: {parts}"


def _show(front: Any, page: Path, *, as_json: bool, verbose: bool) -> None:
    from edge_compression.report.text import last, short
    from edge_contracts.codec import plain

    report, manifest = front.report, front.manifest
    if as_json:
        document = {"bundle": str(front.bundle), "variants": plain(manifest.variants), **plain(report)}
        click.echo(json.dumps(document, indent=1, sort_keys=True))
        return
    for line in short(report):
        click.echo(line)
    if verbose:
        _show_all(report)
    click.echo(f"Bundle: {front.bundle} ({_download(manifest)})")
    click.echo(f"Report: {page}")
    end = last(report)
    if end is not None:
        click.echo(end)


def _show_all(report: Any) -> None:
    from rich.console import Console

    from edge_compression.report.text import table

    console = Console()
    Console(width=None if console.is_terminal else 200).print(table(report))
    click.echo(f"8 bits: {report.eight_bit.statement}.")
    for note in report.notes:
        click.echo(f"Note: {note}.")
