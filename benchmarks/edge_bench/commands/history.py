"""`edgewright bench history`: the command; what is said is decided in `edge_bench.decisions.history`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from edge_bench.commands.options import json_option, read_report, wrote
from edge_bench.decisions.history import Entry, History, files_in, history_of


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("paths", metavar="FOLDER|REPORT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--subject", metavar="NAME", help="Model or variant to show; default: all.")
@json_option
def history(paths: tuple[Path, ...], subject: str | None, json_to: str | None) -> None:
    """Show how latency, memory and quality went over time.

    Reads reports that `bench measure --history FOLDER` or `--json FILE` wrote. Each is compared with the one before it
    of the same model; a difference below 1 %, or that chance explains, is "same". Two reports were not measured in
    turns, so what else the machine did is in the difference: `bench gate --against` measures both anew.

    \b
    Examples:
      edgewright bench history reports
      edgewright bench history reports --subject int8-pc-minmax-rr --json -
    """
    found = history_of((str(path), read_report(path)) for path in files_in(paths))
    if subject is not None:
        found = History(entries=tuple(one for one in found.entries if one.subject == subject))
    if not wrote(found, json_to):
        console = Console()
        (console if console.is_terminal else Console(width=160)).print(_table(found))


def _table(found: History) -> Table:
    drawn = Table("model", "measured (UTC)", "p50 ms", "95 % interval", "change", "ratio", "peak MB", "kB", "score")
    for one in found.entries:
        drawn.add_row(*_row(one))
    return drawn


def _row(one: Entry) -> list[str]:
    ratio = "" if one.ratio is None else f"{one.ratio:.3f} ({one.low:.3f} to {one.high:.3f})"
    return [
        one.subject,
        one.measured_at,
        "" if one.p50_ms is None else f"{one.p50_ms:.3f}",
        "" if one.p50_ms is None else f"{one.p50_low_ms:.3f} to {one.p50_high_ms:.3f}",
        one.change,
        ratio,
        "" if one.peak_memory_mb is None else f"{one.peak_memory_mb:.1f}",
        f"{one.size / 1e3:.0f}",
        "" if one.score is None else f"{one.score:.4f}",
    ]
