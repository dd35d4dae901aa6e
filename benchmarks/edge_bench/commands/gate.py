"""`edgewright bench gate`: the command; what passes is decided in `edge_bench.decisions.gate`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import click

from edge_agent.config.profiles import load_profile
from edge_bench.benchmark import BenchSettings, run
from edge_bench.commands.options import (
    Feeding,
    feeding_options,
    json_option,
    read_report,
    seed_option,
    write_text,
    wrote,
)
from edge_bench.compare import compare_models
from edge_bench.decisions.at_ref import at_ref
from edge_bench.decisions.gate import (
    Allowed,
    LimitCheck,
    against_baseline,
    against_budget,
    costs,
    latency_check,
    result,
)
from edge_bench.decisions.gate import sentence as gate_sentence
from edge_bench.outputs.tables import gate_as_junit
from edge_bench.report import BenchReport
from edge_bench.scenario import Scenario
from edge_bench.scenarios.summary import LoadSettings
from edge_contracts.errors import OperatorError

FAILED, UNSURE = 1, 7
"""Exit codes: a limit is broken; nothing is shown either way. Others are those of errors."""

BRIEF_S = 0.5
"""Measuring time of each side of `--against` for what is not latency, in seconds."""


@dataclass(frozen=True, kw_only=True)
class _Measuring:
    feeding: Feeding
    seconds: float
    seed: int


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", metavar="MODEL|BUNDLE|REPORT", type=click.Path(path_type=Path))
@click.option(
    "--budget", metavar="PROFILE", help="Device profile, by name or file, whose model budget must hold; default: none."
)
@click.option(
    "--baseline",
    metavar="REPORT",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Report of an earlier measurement on this machine to compare with; default: none.",
)
@click.option(
    "--against",
    metavar="REF|PATH",
    help="Commit of the repository, or another model or bundle, to measure beside this one; default: none.",
)
@click.option("--slower", type=click.FloatRange(0.0, 1000.0), default=5.0, show_default=True,
              help="Latency that may be lost, in percent.")  # fmt: skip
@click.option("--growth", type=click.FloatRange(0.0, 1000.0), default=10.0, show_default=True,
              help="Growth of peak memory that is allowed, in percent.")  # fmt: skip
@click.option("--drop", type=click.FloatRange(0.0, 100.0), default=1.0, show_default=True,
              help="Quality that may be lost, in points; in percent for metrics without points.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0.1, max=3600.0), default=20.0, show_default=True,
              help="Measuring time per model, or per pair with --against, in seconds.")  # fmt: skip
@feeding_options
@seed_option
@click.option("--junit", "junit_to", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="File to write for build servers, as JUnit; default: none.")  # fmt: skip
@json_option
@click.pass_context
def gate(
    context: click.Context, path: Path, budget: str | None, baseline: Path | None, against: str | None, slower: float,
    growth: float, drop: float, seconds: float, feeding: Feeding, seed: int, junit_to: Path | None,
    json_to: str | None,
) -> None:  # fmt: skip
    """Check a model against a budget, report or commit.

    What is checked is a model, a bundle or a report of `bench measure --json`.

    --against takes the model or bundle as it was at a commit and measures both here, in pairs of processes and turns
    of random order: what else the machine does is in both. --baseline compares with numbers of another day, and alarms
    falsely where the machine has changed since.

    Ends with 0 when every check passes, 1 when one fails, 7 when one is unsure and none fails: its interval lies on
    both sides of the limit.

    \b
    Examples:
      edgewright bench gate model.onnx --budget pi-5
      edgewright bench gate new.json --baseline old.json --slower 3
      edgewright bench gate bundle --against origin/main --task har.toml --json gate.json
    """
    how = _Measuring(feeding=feeding, seconds=seconds, seed=seed)
    allowed = Allowed(slower=slower, growth=growth, drop=drop)
    checks: list[LimitCheck] = []
    if budget is not None or baseline is not None:
        report = read_report(path) if path.suffix == ".json" else _report(path, how)
        if budget is not None:
            limits = load_profile(budget).model
            checks += [check for one in report.subjects for check in against_budget(one, limits)]
        if baseline is not None:
            checks += against_baseline(report, read_report(baseline), allowed, seed)
    if against is not None:
        checks += _beside(path, against, allowed, how)
    found = result(checks)
    if junit_to is not None:
        write_text(junit_to, gate_as_junit(found, path.name))
    if not wrote(found, json_to):
        click.echo("\n".join(gate_sentence(one) for one in found.checks))
        click.echo(f"Gate: {found.verdict}.")
    context.exit({"pass": 0, "fail": FAILED, "unsure": UNSURE}[found.verdict])


def _settings(how: _Measuring, seconds: float) -> BenchSettings:
    return BenchSettings(threads=how.feeding.threads, load=LoadSettings(seconds=seconds, seed=how.seed))


def _report(path: Path, how: _Measuring) -> BenchReport:
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
        what = how.feeding.scenario(path, [], Path(work))
        return run(path.name, what, how.feeding.task, _settings(how, how.seconds))


def _beside(path: Path, against: str, allowed: Allowed, how: _Measuring) -> list[LimitCheck]:
    """Measure what lies at `path` beside what it was, or is elsewhere, and check each variant that both have."""
    if path.suffix == ".json":
        raise OperatorError("measures models: give the model or bundle, not a report", subject="--against")
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
        folders = [Path(work) / side for side in ("base", "head", "ref")]
        for folder in folders:
            folder.mkdir()
        other = Path(against) if Path(against).exists() else at_ref(path, against, folders[2])
        base = how.feeding.scenario(other, [], folders[0])
        head = how.feeding.scenario(path, [], folders[1])
        reports = [
            run(name, what, how.feeding.task, _settings(how, BRIEF_S))
            for name, what in ((against, base), (path.name, head))
        ]
        return [check for pair in _pairs(base, head) for check in _pair(pair, (base, head), reports, allowed, how)]


def _pairs(base: Scenario, head: Scenario) -> list[tuple[int, int]]:
    """Return the places of subjects that both have, by name; one model alone is the other whatever its name."""
    if len(base.subjects) == len(head.subjects) == 1:
        return [(0, 0)]
    places = {one.name: place for place, one in enumerate(base.subjects)}
    found = [(places[one.name], place) for place, one in enumerate(head.subjects) if one.name in places]
    if not found:
        raise OperatorError("has no variant of these names", subject="--against", hint=f"it has: {', '.join(places)}")
    return found


def _pair(
    places: tuple[int, int], sides: tuple[Scenario, Scenario], reports: list[BenchReport], allowed: Allowed,
    how: _Measuring,
) -> list[LimitCheck]:  # fmt: skip
    before, after = (report.subjects[place] for report, place in zip(reports, places, strict=True))
    for one in (before, after):
        if one.error is not None:
            return [LimitCheck(subject=one.name, what="runs", verdict="fail", value=0, limit=1, unit="", why=one.error)]
    plans = [side.plan(side.subjects[place], how.feeding.threads) for side, place in zip(sides, places, strict=True)]
    ratio = compare_models((before.name, after.name), (plans[0], plans[1]), how.seconds, how.seed)
    return [latency_check(after.name, ratio, allowed), *costs(before, after, allowed)]
