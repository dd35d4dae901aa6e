"""Options that several commands of `edgewright bench` have, declared once: what models are fed, where results go."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import click

from edge_agent.offline.random_inputs import Shapes, parse_shapes
from edge_bench.report import BenchReport
from edge_bench.scenario import Scenario, scenario
from edge_bench.task import Task, read_task
from edge_contracts.codec import decode, plain
from edge_contracts.errors import OperatorError
from edge_contracts.limits import MIB

MAX_REPORT_BYTES = 64 * MIB

Command = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Feeding:
    """What models are fed and by how many threads: the samples of a task, a bundle's golden samples, or random inputs
    whose open sizes are `shapes`."""

    task: Task | None
    threads: int
    shapes: Shapes

    def scenario(self, path: Path, variants: list[str], folder: Path) -> Scenario:
        """Return what is measured of a model or bundle; samples are unpacked into `folder`. Raises OperatorError."""
        what = replace(scenario(path, self.task, variants, folder), shapes=self.shapes)
        if self.shapes and what.samples is not None:
            raise OperatorError("the samples have sizes of their own", subject="--shape", hint="leave it out")
        return what


def feeding_options(command: Command) -> Command:
    """Give a command the options that say what is fed; it gets them as one argument, `feeding`."""

    @wraps(command)
    def wrapped(*words: Any, task_file: Path | None, threads: int, shapes: tuple[str, ...], **others: Any) -> Any:
        task = None if task_file is None else read_task(task_file)
        return command(*words, feeding=Feeding(task=task, threads=threads, shapes=parse_shapes(shapes)), **others)

    for option in (_SHAPE, _THREADS, _TASK):
        wrapped = option(wrapped)
    return wrapped


class _Duration(click.ParamType[float]):
    """A duration such as 90s, 10m or 2h, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float | int):
            return float(value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value))
        if match is None:
            self.fail(f"{value!r} is no duration such as 90s, 10m or 2h", param, ctx)
        return float(match[1]) * {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}[match[2]]


DURATION = _Duration()

_TASK = click.option(
    "--task",
    "task_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Task file with real inputs and labels, for quality as well; default: a bundle's golden samples, else random "
    "inputs.",
)
_THREADS = click.option(
    "--threads", type=click.IntRange(min=1, max=256), default=1, show_default=True, help="Inference threads."
)
_SHAPE = click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=SIZES",
    help="Sizes of a random input that a model leaves open, such as x=1,3,320,320; may be repeated.",
)
seed_option = click.option(
    "--seed", type=int, default=0, show_default=True, help="Number that the random order starts from."
)
json_option = click.option(
    "--json", "json_to", metavar="FILE", help="File to write the result to; - is standard output."
)


def wrote(found: object, json_to: str | None) -> bool:
    """Write a record where `--json` says; tell whether that was standard output, which then has nothing else."""
    if json_to == "-":
        click.echo(json.dumps(plain(found), sort_keys=True))
        return True
    if json_to is not None:
        write_text(Path(json_to), json.dumps(plain(found), indent=1, sort_keys=True) + "\n")
    return False


def write_text(path: Path, text: str) -> None:
    """Write a file. Raises OperatorError naming it."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OperatorError(error.strerror or "cannot be written", subject=str(path)) from error


def read_report(path: Path) -> BenchReport:
    """Read a report of `bench --json`. Raises OperatorError and ContractError naming the file."""
    try:
        with path.open("rb") as source:
            data = source.read(MAX_REPORT_BYTES + 1)
    except OSError as error:
        raise OperatorError(error.strerror or "cannot be read", subject=str(path)) from error
    return decode(data, BenchReport, limit=MAX_REPORT_BYTES, what=str(path))


def named_variant(name: str) -> tuple[Path, list[str]]:
    """Return what MODEL, BUNDLE or BUNDLE:VARIANT means: the path and the variants asked for."""
    path = Path(name)
    if not path.exists() and ":" in name:
        head, _, variant = name.rpartition(":")
        return Path(head), [variant]
    return path, []
