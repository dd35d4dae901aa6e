"""Compression as a library: `compress` is the command, the functions beside it are passes on their own.

from edge_compression import compress, quantize_static
front = compress("har.toml", "pi-4", out="har-1.0.0", options=Options(max_drop=0.5))
int8 = quantize_static(Path("har.onnx").read_bytes(), [{"x": sample} for sample in samples], reduce_range=True)
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.config.profiles import load_profile
from edge_bench.environment import environment
from edge_bench.task import Task, read_task
from edge_compression.bundle.writer import BundleWriter, fresh_folder, write_bundle
from edge_compression.evaluation.layer_errors import LayerError, LayersPlan, layer_errors
from edge_compression.evaluation.sample_splits import CALIBRATION
from edge_compression.front import Front
from edge_compression.importers.prepare import prepare_model
from edge_compression.options import Options, Work
from edge_compression.pass_api import Changes, Context, Feeds, Pass
from edge_compression.passes import StaticInt8
from edge_compression.recipes.recipe import Recipe, load_recipes
from edge_compression.report.evidence import gather
from edge_compression.report.html import html
from edge_compression.report.model import Run, make_report
from edge_compression.search.cache_keys import TOOLS
from edge_compression.search.driver import Search, SearchFolder
from edge_compression.search.finalists import SearchResult
from edge_compression.search.progress import Progress
from edge_contracts.codec import convert
from edge_contracts.names import Name, Version
from edge_contracts.profile import DeviceProfile


@dataclass(frozen=True, kw_only=True)
class Release:
    """What the bundle is called, and how the run can be repeated; the name is the task's if not given."""

    name: str | None = None
    version: str = "1.0.0"
    command: str = ""


class Silent:
    """Nobody watches."""

    def said(self, text: str) -> None:
        """Say nothing."""

    def judged(self, *known: object) -> None:
        """Show nothing."""


def compress(
    task: Task | Path | str,
    profile: DeviceProfile | Path | str,
    *,
    out: Path | str,
    options: Options | None = None,
    recipes: Sequence[Recipe] | Path | None = None,
    work: Work | None = None,
    release: Release | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Front:
    """Search for variants of the task's model that keep the limits, and write the bundle into the folder `out`.

    `recipes` are a folder of them, or begin with the float one, as `load_recipes` returns them; ours if not given.
    `work` keeps what the search built and judged, for a later call to go on from; without it all is forgotten. More
    parameters than five, all but two with defaults: it is the command's one door. Raises what the command reports:
    ContractError, OperatorError, BundleError, RunnerError.
    """
    named_task = task if isinstance(task, Task) else read_task(Path(task))
    device = profile if isinstance(profile, DeviceProfile) else load_profile(profile)
    chosen, named = options or Options(), release or Release()
    watching = progress or Silent()
    name = convert(named.name or named_task.file.name, Name, what="name")
    convert(named.version, Version, what="version")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgewright-")))
        place = SearchFolder(scratch=scratch, work=work or Work(folder=scratch / "work"))
        machine = environment(TOOLS)
        read = prepare_model(named_task, place.work.folder, chosen.memory_mb, watching.said)
        tried = recipes if isinstance(recipes, Sequence) else load_recipes(read.format, recipes)
        found = Search(read, device, chosen, place, watching).run(tried)
        run = Run(
            name=name, version=named.version, command=named.command, task=read, profile=device, options=chosen,
            environment=machine,
        )  # fmt: skip
        report = make_report(run, found, _layers(read, found, place.scratch, chosen.memory_mb))
        with fresh_folder(Path(out), replace=replace) as folder:
            manifest = write_bundle(folder, BundleWriter(task=read, profile=device, found=found, report=report))
        seen = gather(read, found)
    return Front(bundle=Path(out), manifest=manifest, report=report, evidence=seen, html=html(report, seen, manifest))


def _layers(task: Task, found: SearchResult, scratch: Path, memory_mb: float) -> dict[str, tuple[LayerError, ...]]:
    """Return the errors of every rung by layer of the given model, whose names its maker knows."""
    if task.format != "onnx":
        return {}
    return {
        one.id: layer_errors(
            LayersPlan(
                original=str(task.model),
                variant=str(one.model),
                calibration=str(scratch / CALIBRATION),
                tensors=found.tensors,
                memory_limit_mb=memory_mb,
            )
        )
        for one in found.candidates
        if one.id in found.ladder.rungs and not one.is_float
    }


def forget(work: Work) -> None:
    """Remove what a search kept for going on."""
    shutil.rmtree(work.folder, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model as bytes and, per pass, what became of it."""

    data: bytes
    changes: tuple[Changes, ...]


def apply_pass(step: Pass, model: bytes | Model, calibration: Iterable[Mapping[str, Any]] = ()) -> Model:
    """Apply one pass in this process. `calibration` holds feeds of one sample each, as the model takes them.

    Raises PassError when the pass cannot be applied.
    """
    before = model if isinstance(model, Model) else Model(data=model, changes=())
    feeds: list[Feeds] = [dict(sample) for sample in calibration]
    applied = step.apply(before.data, Context(calibration=lambda: iter(feeds), unquantized=before.data))
    name = str(step.__struct_config__.tag) if isinstance(step, msgspec.Struct) else type(step).__name__
    return Model(data=applied.model, changes=(*before.changes, {"pass": name, **applied.changed}))


def quantize_static(model: bytes | Model, calibration: Iterable[Mapping[str, Any]], **parameters: Any) -> Model:
    """Return the ONNX model in static int8; `parameters` are those of the pass `static_int8`.

    Raises ContractError naming a parameter, PassError when the model or the calibration does not allow it.
    """
    step = convert({"pass": "static_int8", **parameters}, StaticInt8, what="quantize_static")
    return apply_pass(step, model, calibration)
