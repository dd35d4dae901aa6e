"""`edgewright bundle create`: the command line of `edge_agent.offline.create`, for models of every kind that `compress`
takes. What no engine takes as it is gets converted first; what engines take needs the base install only."""

from __future__ import annotations

import json
import re
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_contracts.errors import MissingExtraError, OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_agent.offline.create import Created, Creation

PATH = click.Path(path_type=Path, exists=True)
MEMORY_MB = 4096.0
"""Of the process that converts a model."""


@click.command()
@click.argument("model", type=PATH)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write the bundle to.")
@click.option(
    "--task",
    "task_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Task file with samples, processing, labels and guards; its metric is not needed.",
)
@click.option(
    "--samples",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File (`.npz`) with an array [N, ...] for each input, by its name; default: made-up inputs.",
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=SIZES",
    help="Sizes of a made-up input that the model leaves open, such as x=1,3,320,320; may be repeated.",
)
@click.option(
    "--constant",
    "constants",
    multiple=True,
    metavar="NAME=NUMBERS",
    help="Input that is the same for every request, such as `sr=16000`; may be repeated.",
)
@click.option(
    "--feedback",
    "feedbacks",
    multiple=True,
    metavar="NAME=OUTPUT",
    help="Input that is fed the output of the step before, such as `state=stateN`; may be repeated.",
)
@click.option("--name", default=None, help="Model family; default: the task's or the file's name.")
@click.option("--version", default="1.0.0", show_default=True, help="Version of the release.")
@click.option("--license", "license_text", default="", help="License of the model, such as Apache-2.0; default: none.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def create(model: Path, out: Path, task_file: Path | None, samples: Path | None, as_json: bool, **rest: Any) -> None:
    """Create a bundle of a model as it is.

    Any model that an engine runs can be signed, shipped and served so: it is not compressed and needs no metric. Its
    own answers to samples, or to made-up inputs, are what devices prove it by. `edgewright compress` makes bundles with
    smaller variants.

    \b
    Examples:
      edgewright bundle create model.onnx --out build/model
      edgewright bundle create detector.onnx --shape images=1,3,320,320 --out build/detector
      edgewright bundle create vad.onnx --shape input=1,512 --constant sr=16000 --feedback state=stateN --out build/vad
    """
    from edge_agent.offline.create import create as write
    from edge_compression.bundle.folder import fresh_folder

    with fresh_folder(out, replace=rest["force"]) as folder, tempfile.TemporaryDirectory() as work:
        plan = _runnable(_plan(model, task_file, samples, rest), Path(work))
        made = write(plan, folder, datetime.now(UTC))
    _show(made, out, as_json=as_json)


def _plan(model: Path, task_file: Path | None, samples: Path | None, rest: Mapping[str, Any]) -> Creation:
    from edge_agent.inference.samples import read_arrays
    from edge_agent.offline.create import ONLY, Creation, FedBy
    from edge_agent.offline.random_inputs import parse_shapes

    words = ["edgewright", "bundle", "create", model.name, "--version", rest["version"]]
    plan = Creation(
        model=model,
        source=model,
        name=rest["name"] or _name(model),
        version=rest["version"],
        license=rest["license_text"],
        shapes=parse_shapes(rest["shapes"]),
        command=shlex.join(words),
    )
    if task_file is not None:
        plan = _with_task(plan, task_file, rest["name"])
    inputs = dict(plan.inputs)
    for name, array in (read_arrays(samples, what=samples.name) if samples is not None else {}).items():
        inputs[ONLY if name == "x" else name] = FedBy(samples=array)
    for name, text in _pairs(rest["constants"], "--constant"):
        inputs[name] = FedBy(constant=_numbers(text, name))
    for name, text in _pairs(rest["feedbacks"], "--feedback"):
        inputs[name] = FedBy(feedback=text)
    return replace(plan, inputs=inputs)


def _with_task(plan: Creation, task_file: Path, name: str | None) -> Creation:
    """Add what a task declares: how samples become inputs, what is made of answers, labels and guards."""
    from edge_agent.offline.create import ONLY, FedBy
    from edge_bench.task import read_task
    from edge_contracts.guards import InputGuard

    task = read_task(task_file)
    guard, none = task.file.guard.input, InputGuard()
    fed = {
        one.name or ONLY: FedBy(
            samples=one.samples,
            mapping=None if one.samples is None else one.mapping,
            guard=guard if one is task.first else none,
            constant=one.constant,
            feedback=one.feedback,
        )
        for one in task.inputs
    }
    return replace(
        plan,
        name=name or task.file.name,
        license=plan.license or task.file.license,
        labels=task.file.labels,
        inputs=fed,
        answer=task.file.answer,
        last_resort=task.file.last_resort,
    )


def _name(model: Path) -> str:
    """Return a family's name out of a file's: what no name may hold becomes a hyphen."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", model.stem).strip("-_.")[:64] or "model"


def _pairs(words: tuple[str, ...], option: str) -> Iterator[tuple[str, str]]:
    for word in words:
        name, equals, text = word.rpartition("=")
        if not (name and equals and text):
            raise OperatorError(f"{word[:80]!r} is not NAME=VALUE", subject=option)
        yield name, text


def _numbers(text: str, name: str) -> tuple[int | float, ...]:
    try:
        return tuple(float(part) if set(part) & set(".eEn") else int(part) for part in text.split(","))
    except ValueError:
        raise OperatorError(f"{text[:80]!r} is not numbers", subject=f"--constant {name}", hint="sr=16000") from None


def _runnable(plan: Creation, work: Path) -> Creation:
    """Return the plan with a file that an engine takes: the model's own, else an ONNX file made of it in `work`, with
    the classes' names where it had them as text."""
    model = plan.model
    if model.suffix == ".tflite" or (model.suffix == ".onnx" and find_spec("onnx") is None):
        return plan
    if find_spec("onnx") is None:
        raise MissingExtraError("compress", "onnx")
    from edge_compression.importers.import_process import ONLY
    from edge_compression.importers.prepare import convert, names_of_classes, needs_import

    if not needs_import(model):
        return plan
    made = work / "model.onnx"
    sample = {
        name or ONLY: fed.samples[:1]
        for name, fed in plan.inputs.items()
        if fed.samples is not None and fed.mapping is None
    }
    convert(model, made, sample, MEMORY_MB, keep_axes=True)
    return replace(plan, model=made, labels=plan.labels or names_of_classes(made))


def _show(made: Created, out: Path, *, as_json: bool) -> None:
    from edge_contracts.codec import plain

    manifest = made.manifest
    if as_json:
        click.echo(json.dumps({"bundle": str(out), "notes": made.notes, "manifest": plain(manifest)}, sort_keys=True))
        return
    for note in made.notes:
        click.echo(f"Note: {note}.")
    whole, size = manifest.total_bytes / 1e3, manifest.variants[0].size / 1e3
    click.echo(f"{manifest.name} {manifest.version}: {out} ({whole:.0f} kB, of which the model {size:.0f} kB)")
