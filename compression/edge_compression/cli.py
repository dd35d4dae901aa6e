"""`edgewright compress`: the command line of the search. Progress is on stderr, the result on stdout."""

from __future__ import annotations

import json
import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from edge_agent.profiles import load_profile
from edge_bench.environment import environment
from edge_bench.task import Task, read_task
from edge_compression.bundle import Writing, check_free, fresh_folder, write_bundle
from edge_compression.recipe import load_recipes
from edge_compression.report import Report, candidate_report, eight_bit, notes, table, timing
from edge_compression.search import Found, Options, Search
from edge_contracts.codec import convert, plain
from edge_contracts.manifest import Manifest
from edge_contracts.names import Name, Version
from edge_contracts.profile import DeviceProfile

TOOLS = ("numpy", "onnx", "onnxruntime", "onnxslim", "ai-edge-litert", "ai-edge-quantizer")
_DURATION = re.compile(r"^([0-9]+(?:\.[0-9]+)?)(s|m|h)?$")
_SECONDS = {None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


class Points(click.ParamType):
    """Percentage points: `0.5` or `0.5pt`."""

    name = "points"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            points = float(str(value).removesuffix("pt"))
        except ValueError:
            self.fail(f"{value!r} is not a number of points such as 0.5 or 0.5pt", param, ctx)
        if not 0.0 <= points <= 100.0:
            self.fail(f"{value!r} is not between 0 and 100", param, ctx)
        return points


class Duration(click.ParamType):
    """A duration: `90`, `90s`, `10m` or `1h`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = _DURATION.match(str(value))
        if found is None or float(found[1]) <= 0:
            self.fail(f"{value!r} is not a duration such as 90s, 10m or 1h", param, ctx)
        return float(found[1]) * _SECONDS[found[2]]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("task_file", metavar="TASK.toml", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--profile", "profile_name", required=True, help="Device profile: a name or a path to a .toml.")
@click.option(
    "--max-drop", type=Points(), default="0.5", show_default=True, help="Points of the metric that may be lost."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the bundle.")
@click.option("--name", default=None, help="Name of the model family; the task's name if not given.")
@click.option("--version", default="1.0.0", show_default=True, help="Version of the release.")
@click.option("--budget", type=Duration(), default="10m", show_default=True, help="Time for the whole search.")
@click.option(
    "--calib", type=click.IntRange(min=1), default=256, show_default=True, help="Calibration samples at most."
)
@click.option(
    "--eval",
    "evaluation",
    type=click.IntRange(min=1),
    default=5000,
    show_default=True,
    help="Evaluation samples at most.",
)
@click.option(
    "--recipes",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder of recipes instead of ours.",
)
@click.option("--force", is_flag=True, help="Replace OUT if it has content.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: the ladder and everything tried.")
def compress(
    task_file: Path,
    profile_name: str,
    out: Path,
    name: str | None,
    version: str,
    recipes: Path | None,
    force: bool,
    as_json: bool,
    **limits: float,
) -> None:
    """Turn a trained model into a bundle of proved variants.

    Every recipe is built, scored on the task's data with the engine's optimisations on and off, and timed in turns with
    the original. What loses more than --max-drop or is dominated is left out, and the report says why.

    \b
    Examples:
      edgewright compress watch_har.toml --profile pi-4 --max-drop 0.5 --out har-1.0.0
      edgewright compress kws.toml --profile x86-gateway --out kws --budget 2m --json > report.json
    """
    check_free(out, replace=force)
    profile = load_profile(profile_name)
    task = read_task(task_file)
    chosen_name = convert(name or task.file.name, Name, what="name")
    convert(version, Version, what="version")
    options = Options(
        max_drop=limits["max_drop"],
        budget_s=limits["budget"],
        calibration=int(limits["calib"]),
        evaluation=int(limits["evaluation"]),
    )
    tried = load_recipes(task.format, recipes)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work, console.status("starting") as status:

        def say(text: str) -> None:
            status.update(text) if console.is_terminal else click.echo(text, err=True)

        machine = environment(TOOLS)
        search = Search(task, profile, options, Path(work), say)
        found = search.run(tried)
        report = Report(
            name=chosen_name,
            version=version,
            command=_command(task_file, profile, options, version),
            profile=profile.name,
            max_drop=options.max_drop,
            environment=machine,
            **_results(task, found, options),
        )
        with fresh_folder(out, replace=force) as folder:
            manifest = write_bundle(folder, Writing(task=task, profile=profile, found=found, report=report))
    _show(out, report, manifest, console, as_json=as_json)


def _results(task: Task, found: Found, options: Options) -> dict[str, Any]:
    return {
        "metric": task.file.metric,
        "evaluation_samples": found.x.shape[0],
        "calibration_samples": min(options.calibration, task.calibration.shape[0]),
        "calibration_overlap": task.overlap,
        "original_score": found.score,
        "original_size": task.model.stat().st_size,
        "original": timing(found.timing),
        "ladder": found.ladder.rungs,
        "eight_bit": eight_bit(found),
        "notes": notes(task, found),
        "candidates": tuple(candidate_report(one) for one in found.candidates),
    }


def _command(task_file: Path, profile: DeviceProfile, options: Options, version: str) -> str:
    words = ["edgewright", "compress", task_file.name, "--profile", profile.name, "--max-drop", f"{options.max_drop:g}"]
    words += ["--version", version, "--calib", str(options.calibration), "--eval", str(options.evaluation)]
    return shlex.join(words)


def _show(out: Path, report: Report, manifest: Manifest, console: Console, *, as_json: bool) -> None:
    if as_json:
        document = {"bundle": str(out), "variants": plain(manifest.variants), **plain(report)}
        click.echo(json.dumps(document, indent=1, sort_keys=True))
        return
    Console(width=None if console.is_terminal else 200).print(table(report))
    click.echo(f"8 bits: {report.eight_bit.statement}.")
    for note in report.notes:
        click.echo(f"Note: {note}.")
    click.echo(f"Bundle: {out} ({manifest.total_bytes / 1e3:.0f} kB, {len(manifest.variants)} variants)")
