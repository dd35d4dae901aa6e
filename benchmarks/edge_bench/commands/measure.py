"""`edgewright bench measure`: the command; the measuring is in `edge_bench.benchmark`."""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from edge_bench.benchmark import BenchSettings, run
from edge_bench.commands.options import DURATION, Feeding, feeding_options, json_option, seed_option, write_text, wrote
from edge_bench.decisions.history import keep
from edge_bench.energy.meters import open_meter
from edge_bench.outputs.console import remarks, table
from edge_bench.outputs.html import html
from edge_bench.outputs.tables import as_csv, report_as_junit
from edge_bench.report import BenchReport
from edge_bench.scenarios.drive import RawFile
from edge_bench.scenarios.rules import STREAMS
from edge_bench.scenarios.summary import LoadSettings
from edge_bench.scenarios.sweep import parse_sweep
from edge_contracts.errors import OperatorError
from edge_contracts.limits import MIB

SCENARIOS = {
    "single-stream": "single_stream",
    "multi-stream": "multi_stream",
    "server": "server",
    "offline": "offline",
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", metavar="MODEL|BUNDLE", type=click.Path(path_type=Path))
@click.option("--variants", default="", metavar="A,B", help="Variants of a bundle to measure; default: all.")
@click.option("--scenario", type=click.Choice(list(SCENARIOS)), default="single-stream", show_default=True,
              help="How load is put on the model: the scenarios of MLPerf.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0.05, max=86400.0), default=3.0, show_default=True,
              help="Measuring time per model, in seconds.")  # fmt: skip
@click.option("--count", type=click.IntRange(min=1), metavar="N",
              help="Number of queries after which a model is done earlier; default: as many as fit.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(min=0.001, max=1e6),
              help="Queries a second that are due in the scenario server; default: none.")  # fmt: skip
@click.option("--deadline", "deadline_ms", type=click.FloatRange(min=0.001, max=1e6),
              help="Time in ms after which an answer is late; default: none.")  # fmt: skip
@click.option("--streams", type=click.IntRange(min=1, max=1024), default=STREAMS, show_default=True,
              help="Number of samples in each query of multi-stream.")  # fmt: skip
@click.option("--blocks", type=click.IntRange(min=3, max=1000), default=7, show_default=True,
              help="Number of blocks of each model; those of several models come in random order.")  # fmt: skip
@click.option("--sweep", "sweeps", multiple=True, metavar="NAME=A,B",
              help="Settings to combine, such as threads=1,2 or optimize=on,off; may be repeated.")  # fmt: skip
@click.option("--driver", type=click.Choice(["own", "loadgen"]), default="own", show_default=True,
              help="What puts load on the model; loadgen is MLPerf's own program, on x86-64.")  # fmt: skip
@click.option("--sustain", "sustain_s", type=DURATION, default="0s", show_default=True, metavar="DURATION",
              help="Time in seconds, or such as 10m, that each model also runs without a pause.")  # fmt: skip
@click.option("--operators", is_flag=True, help="Have the engine's profiler tell what each operator costs.")
@click.option("--meter", default="auto", show_default=True, metavar="NAME",
              help="Meter of energy: auto, none, rapl, ina, serial:DEVICE, or a plug-in.")  # fmt: skip
@feeding_options
@seed_option
@click.option("--history", metavar="FOLDER", type=click.Path(path_type=Path, file_okay=False),
              help="Folder to keep the report in, for `bench history`; default: not kept.")  # fmt: skip
@click.option("--raw", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="File to stream all latencies to, a JSON object a line; default: the report's own.")  # fmt: skip
@click.option("--raw-limit", type=click.IntRange(min=1, max=1 << 20), default=64, show_default=True,
              help="Size in MiB at which the file of --raw takes no more.")  # fmt: skip
@click.option("--csv", "csv_to", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="File to write one row a model to, as CSV; default: none.")  # fmt: skip
@click.option("--junit", "junit_to", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="File to write for build servers, as JUnit; default: none.")  # fmt: skip
@click.option("--html", "html_to", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="File to write the report with charts to, as one page; default: none.")  # fmt: skip
@json_option
def measure(path: Path, variants: str, **words: Any) -> None:
    """Measure latency, memory and quality of a model or bundle.

    Reports load time, first inference, percentiles of latency with intervals, throughput, CPU time, memory and, with a
    task, quality. Each model has a process of its own, is warmed up until its latency is steady, and is then measured
    in blocks; those of several models come in random order. Memory is measured in a pass of its own.

    A run is VALID by MLPerf's rules: enough queries to be sure of the percentile (single-stream p90, multi-stream and
    server p99 within --deadline), enough samples (offline). A latency whose blocks differ by more than 5 % is unstable,
    and the report says why. The word `measure` may be left out.

    \b
    Examples:
      edgewright bench measure model.onnx --seconds 5
      edgewright bench measure detector.onnx --shape images=1,3,320,320 --sweep threads=1,2,4
      edgewright bench measure model.onnx --scenario server --rate 50 --deadline 20 --seconds 60
      edgewright bench measure bundle --task watch_har.toml --variants int8-pc-minmax-rr,float --json report.json
    """
    asked = _Asked(**words)
    asked.check_files()
    wanted = [name.strip() for name in variants.split(",") if name.strip()]
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgewright-")))
        what = asked.feeding.scenario(path, wanted, work)
        raw = None if asked.raw is None else stack.enter_context(RawFile(asked.raw, asked.raw_limit * MIB))
        meter = open_meter(asked.meter)
        if meter is not None:
            stack.callback(meter.close)
        settings = BenchSettings(
            threads=asked.feeding.threads, load=asked.load(), sweep=parse_sweep(asked.sweeps), raw=raw, meter=meter,
            sustain_s=asked.sustain_s, operators=asked.operators, progress=_told,
        )  # fmt: skip
        report = run(path.name, what, asked.feeding.task, settings)
    _say(report, asked)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the options say."""

    scenario: str
    seconds: float
    count: int | None
    rate: float | None
    deadline_ms: float | None
    streams: int
    blocks: int
    sweeps: tuple[str, ...]
    driver: str
    sustain_s: float
    operators: bool
    meter: str
    feeding: Feeding
    seed: int
    history: Path | None
    raw: Path | None
    raw_limit: int
    csv_to: Path | None
    junit_to: Path | None
    html_to: Path | None
    json_to: str | None

    def check_files(self) -> None:
        """Raise OperatorError for a file that cannot be written, before minutes are spent on what goes into it."""
        named = {"--csv": self.csv_to, "--junit": self.junit_to, "--html": self.html_to, "--raw": self.raw}
        named["--json"] = None if self.json_to in (None, "-") else Path(str(self.json_to))
        for option, path in named.items():
            if path is not None and str(path) == "-":
                raise OperatorError("only --json writes to standard output", subject=option)
            if path is not None and not path.absolute().parent.is_dir():
                raise OperatorError("no such folder", subject=f"{option} {path}", hint=f"mkdir -p {path.parent}")

    def load(self) -> LoadSettings:
        """Return the load. Raises OperatorError for a server without rate or deadline, and a rate elsewhere."""
        if self.scenario == "server" and (self.rate is None or self.deadline_ms is None):
            raise OperatorError("needs --rate and --deadline", subject="--scenario server")
        if self.scenario != "server" and self.rate is not None:
            raise OperatorError("only the scenario server has a rate", subject="--rate", hint="--scenario server")
        return LoadSettings(
            scenario=SCENARIOS[self.scenario],  # type: ignore[arg-type]
            seconds=self.seconds,
            count=self.count,
            rate=self.rate or 0.0,
            deadline_ms=self.deadline_ms,
            streams=self.streams,
            blocks=self.blocks,
            seed=self.seed,
            driver=self.driver,
        )


def _say(report: BenchReport, asked: _Asked) -> None:
    if asked.history is not None:
        keep(report, asked.history)
    for path, made in ((asked.csv_to, as_csv), (asked.junit_to, report_as_junit), (asked.html_to, html)):
        if path is not None:
            write_text(path, made(report))
    if wrote(report, asked.json_to):
        return
    console = Console()
    (console if console.is_terminal else Console(width=240)).print(table(report))
    for remark in remarks(report):
        click.echo(remark, err=remark.startswith(("Unstable", "Disturbed")))


def _told(done: int, whole: int, name: str) -> None:
    """Show progress on a terminal."""
    if sys.stderr.isatty():
        end = "\r" if done + 1 < whole else "\n"
        sys.stderr.write(f"\x1b[2Kblock {done + 1} of {whole}: {name}{end}")
        sys.stderr.flush()
