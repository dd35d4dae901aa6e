"""How the fleet's commands speak: one JSON document with `--json`, tables and sentences without; arguments they share.

What is asked for goes to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click
from rich import box
from rich.console import Console
from rich.table import Table

from edge_contracts.codec import plain

PIPE_COLUMNS = 240

_Command = TypeVar("_Command", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False)

fleet_argument = click.argument("folder", metavar="DIR", type=FOLDER)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
db_option = click.option("--db", metavar="URL", help="Database URL; default: the file DIR/fleet.db.")


def utc_now() -> datetime:
    """Return the time a command starts at: the one place where commands read the clock."""
    return datetime.now(UTC)


def emit(value: object, as_json: bool, sentence: str) -> None:
    """Print a result: the value as JSON, or the sentence."""
    click.echo(json.dumps(plain(value), indent=2, sort_keys=True) if as_json else sentence)


def log(line: str) -> None:
    """Print a line of a running service, with its time, on standard error."""
    click.echo(f"{utc_now():%Y-%m-%dT%H:%M:%SZ} {line}", err=True)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table on standard output; as wide as it is where there is no terminal."""
    table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(table)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def until_signaled() -> Callable[[], bool]:
    """Return a question that is answered with yes once this process was asked to end (SIGTERM, SIGINT)."""
    signaled: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        signaled.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return lambda: bool(signaled)
