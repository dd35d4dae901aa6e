"""The search: builds every recipe, judges what it made on the evaluation set, times what is good enough, chooses.

Builds and judgements run two or more at a time in processes of their own; latency is measured afterwards, alone, all
models in turns. What a candidate is worth is decided in `evaluate` and `ladder`; the bundle is written by `bundle`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle import hash_file
from edge_bench.measure import Measurement, Runner, RunnerError, measure_interleaved
from edge_bench.protocol import Opened, RunnerPlan
from edge_bench.task import Task, check_model
from edge_compression.build import BuildError, BuildPlan, build
from edge_compression.candidate import Candidate
from edge_compression.evaluate import compare, compare_exact
from edge_compression.ladder import Costs, Ladder, Limits, build_ladder
from edge_compression.recipe import FLOAT_RECIPES, Recipe
from edge_contracts.errors import BundleError
from edge_contracts.limits import MIB
from edge_contracts.manifest import Input
from edge_contracts.profile import DeviceProfile

Array = NDArray[Any]
Say = Callable[[str], None]

ORIGINAL = "original"
EXACT_SAMPLES = 256
"""Samples for the run without optimisations, which is several times slower: enough to see one answer in twenty."""

MEMORY_LIMIT_MB = 6144.0
"""Of one build or one measuring process: a model of the largest class with all its activations, and a tool's copies."""

PARALLEL = min(4, os.cpu_count() or 1)
TIMING_SECONDS = 0.5
"""Inference time of each model in all rounds together; a round has at least one run, however slow."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the caller decides. `max_drop` in points; `budget_s` bounds the whole search; counts bound the samples."""

    max_drop: float
    budget_s: float = 600.0
    calibration: int = 256
    evaluation: int = 5000


@dataclass(frozen=True, kw_only=True)
class Found:
    """The search's result. `x` and `y` are the evaluation samples used; `answers` the original's to them."""

    tensor: Input
    opened: Opened
    x: Array
    y: Array
    answers: Array
    score: float
    timing: Measurement
    candidates: tuple[Candidate, ...]
    ladder: Ladder


class Search:
    """One search in a folder of its own, which the caller removes."""

    def __init__(self, task: Task, profile: DeviceProfile, options: Options, folder: Path, say: Say) -> None:
        self._task, self._profile, self._options, self._folder, self._say = task, profile, options, folder, say
        self._deadline = time.monotonic() + options.budget_s
        chosen = _subset(task.x.shape[0], options.evaluation)
        self._x, self._y = task.x[chosen], task.y[chosen]
        self._slices = None if task.slices is None else task.slices[chosen]
        self._samples, self._calibration = folder / "x.npy", folder / "calib_x.npy"
        np.save(self._samples, self._x, allow_pickle=False)
        np.save(self._calibration, task.calibration[: options.calibration], allow_pickle=False)

    def run(self, recipes: Iterable[Recipe]) -> Found:
        """Try every recipe. Raises ContractError or RunnerError when the original itself does not fit or run."""
        opened, answers = self._original()
        tensor = _input(self._task, opened)
        candidates = tuple(Candidate(recipe=recipe) for recipe in recipes)
        self._build_all(candidates, tensor)
        _mark_duplicates(candidates)
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(lambda one: self._judge(one, answers), candidates))
        timing = self._time_all(candidates)
        if not candidates[0].racing:
            what = f"the float original cannot be served: {candidates[0].reason}"
            raise BundleError(what, subject=self._task.model.name)
        ladder = self._choose(candidates, timing)
        return Found(
            tensor=tensor,
            opened=opened,
            x=self._x,
            y=self._y,
            answers=answers,
            score=compare(self._task.file.metric, answers, answers, self._y, limit=0.0, slices=None).score,
            timing=timing,
            candidates=candidates,
            ladder=ladder,
        )

    def _plan(self, model: Path, *, optimise: bool = True) -> RunnerPlan:
        """Return how a model of this task is measured."""
        return RunnerPlan(
            model=str(model),
            format=self._task.format,
            samples=str(self._samples),
            mapping=self._task.mapping,
            threads=self._profile.model.threads,
            optimise=optimise,
            memory_limit_mb=MEMORY_LIMIT_MB,
        )

    def _original(self) -> tuple[Opened, Array]:
        self._say(f"{self._task.file.name}: original on {self._x.shape[0]} samples")
        with Runner(self._plan(self._task.model)) as runner:
            opened = runner.opened()
            check_model(self._task, opened.inputs, opened.outputs)
            return opened, self._answers(runner, self._samples)[0]

    def _answers(self, runner: Runner, samples: Path, count: int | None = None) -> list[Array]:
        """Return a model's answers to samples, one array an output."""
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".npz") as out:
            runner.predict(samples, Path(out.name), count=count, timeout_s=self._remaining())
            with np.load(out.name, allow_pickle=False) as arrays:
                return [arrays[f"output_{index}"] for index in range(len(arrays.files))]

    def _build_all(self, candidates: tuple[Candidate, ...], tensor: Input) -> None:
        first, rest = candidates[0], candidates[1:]
        self._build(first, tensor, None)
        start = first if first.racing else None
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(lambda one: self._build(one, tensor, start), rest))

    def _build(self, candidate: Candidate, tensor: Input, start: Candidate | None) -> None:
        if candidate.recipe.full_range_weights and self._profile.model.reduce_range:
            candidate.drop_out("not tried", "the profile asks for 7-bit weights (model.reduce_range)")
            return
        if self._remaining() <= 0:
            candidate.drop_out("not tried", "the time budget was used up")
            return
        resumed = start is not None and candidate.recipe.resumes(start.recipe)
        path = self._folder / f"{candidate.id}.{self._task.format}"
        plan = BuildPlan(
            recipe_id=candidate.id,
            recipe=candidate.recipe.text,
            skip=len(start.recipe.passes) if start is not None and resumed else 0,
            model=str(start.model if start is not None and resumed else self._task.model),
            calibration=str(self._calibration),
            count=self._options.calibration,
            tensor=tensor,
            out=str(path),
            memory_limit_mb=MEMORY_LIMIT_MB,
        )
        self._say(f"building {candidate.id}")
        try:
            built = build(plan, timeout_s=self._remaining())
        except BuildError as error:
            candidate.drop_out("failed", str(error))
            return
        candidate.path, candidate.sha256, candidate.size = path, hash_file(path), path.stat().st_size
        candidate.build_s = built.seconds
        candidate.changes = (*(start.changes if start is not None and resumed else ()), *built.changes)

    def _judge(self, candidate: Candidate, original: Array) -> None:
        if not candidate.racing:
            return
        if self._remaining() <= 0:
            candidate.drop_out("not tried", "the time budget was used up")
            return
        metric, limit = self._task.file.metric, self._options.max_drop
        self._say(f"judging {candidate.id}")
        try:
            with Runner(self._plan(candidate.model)) as runner:
                outputs = self._answers(runner, self._samples)
                calibration = self._answers(runner, self._calibration)[0]
            with Runner(self._plan(candidate.model, optimise=False)) as runner:
                exact = self._answers(runner, self._samples, EXACT_SAMPLES)[0]
        except RunnerError as error:
            candidate.drop_out("failed", str(error))
            return
        answers = outputs[0]
        if not np.isfinite(answers).all():
            candidate.drop_out("failed", "it answers infinite values or NaN")
            return
        candidate.outputs, candidate.calibration = outputs, calibration
        candidate.quality = compare(metric, answers, original, self._y, limit=limit, slices=self._slices)
        candidate.exactness = compare_exact(metric, answers, exact, self._y)
        if candidate.quality.drop > limit and candidate.id not in FLOAT_RECIPES:
            candidate.drop_out("left out", f"loses {candidate.quality.drop:.2f} points, {limit:g} are allowed")

    def _time_all(self, candidates: tuple[Candidate, ...]) -> Measurement:
        racing = {one.id: one for one in candidates if one.racing}
        plans = {
            ORIGINAL: self._plan(self._task.model),
            **{name: self._plan(one.model) for name, one in racing.items()},
        }
        self._say(f"timing {len(plans)} models in turns")
        measured, failures = measure_interleaved(plans, seconds=TIMING_SECONDS)
        for name, error in failures.items():
            if name == ORIGINAL:
                raise error
            racing[name].drop_out("failed", str(error))
        for name, one in racing.items():
            one.measured = measured.get(name)
        return measured[ORIGINAL]

    def _choose(self, candidates: tuple[Candidate, ...], timing: Measurement) -> Ladder:
        costs = {one.id: one.costs() for one in candidates if one.racing}
        size = self._task.model.stat().st_size
        original = Costs(
            score=0.0, drop=0.0, latency_ms=timing.latency.p50, size=size, memory_mb=timing.loaded.peak_memory_mb
        )
        limits = Limits(max_drop=self._options.max_drop, disk_bytes=int(self._profile.model.disk_mb * MIB))
        ladder = build_ladder(costs, original, limits, prefer=self._profile.model.prefer, float_id=candidates[0].id)
        for one in candidates:
            if one.id in ladder.rungs:
                one.status = "kept"
            elif one.racing:
                one.drop_out("left out", ladder.left_out[one.id])
        return ladder

    def _remaining(self) -> float:
        return self._deadline - time.monotonic()


def _subset(count: int, wanted: int) -> NDArray[np.intp]:
    """All samples, or `wanted` of them drawn without order but always the same ones."""
    if wanted >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).permutation(count)[:wanted])


def _input(task: Task, opened: Opened) -> Input:
    info = opened.inputs[0]
    return Input(name=info.name, dtype=task.file.input.dtype, shape=info.shape, sample=task.mapping)


def _mark_duplicates(candidates: tuple[Candidate, ...]) -> None:
    seen: dict[str, str] = {}
    for one in candidates:
        if not one.racing:
            continue
        if one.sha256 in seen:
            one.drop_out("duplicate", f"the same bytes as {seen[one.sha256]}: what it adds changed nothing here")
        seen.setdefault(one.sha256, one.id)
