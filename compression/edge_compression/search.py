"""The search: builds every recipe, judges what it made on the evaluation set, times what is good enough, chooses.

Candidates are built and judged two or more at a time in processes of their own; latency is measured afterwards, alone,
all models in turns. When the budget is used up or the search is interrupted, what was judged by then is timed and
chosen from. What a candidate is worth is decided in `evaluate` and `ladder`; the bundle is written by `bundle`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle import hash_file
from edge_bench.measure import LOAD_TIMEOUT_S, Measurement, Runner, RunnerError, measure_interleaved
from edge_bench.protocol import Opened, RunnerPlan
from edge_bench.task import Task, check_model
from edge_compression.build import BuildError, BuildPlan, build
from edge_compression.candidate import Candidate
from edge_compression.evaluate import compare, compare_exact
from edge_compression.ladder import Costs, Ladder, Limits, build_ladder, exceeds
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
RESERVE_SECONDS, RESERVE_SHARE = 2.0, 0.25
"""Kept of the budget for timing: for each model what it takes, at most this share in all."""

USED_UP, STOPPED = "the time budget was used up", "the search was stopped"


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


class OverError(BundleError):
    """There is no time for another step; the message says why."""

    reason = "budget"


@dataclass(frozen=True, kw_only=True)
class _Start:
    """What every candidate begins with: the model's input, its types and answers, and the simplified original."""

    tensor: Input
    opened: Opened
    answers: Array
    first: Candidate | None = None


class Search:
    """One search in a folder of its own, which the caller removes."""

    def __init__(self, task: Task, profile: DeviceProfile, options: Options, folder: Path, say: Say) -> None:
        self._task, self._profile, self._options, self._folder, self._say = task, profile, options, folder, say
        self._deadline = self._last_build = time.monotonic() + options.budget_s
        self._stopped = False
        chosen = _subset(task.x.shape[0], options.evaluation)
        self._x, self._y = task.x[chosen], task.y[chosen]
        self._slices = None if task.slices is None else task.slices[chosen]
        self._samples, self._calibration = folder / "x.npy", folder / "calib_x.npy"
        np.save(self._samples, self._x, allow_pickle=False)
        np.save(self._calibration, task.calibration[: options.calibration], allow_pickle=False)

    def run(self, recipes: Iterable[Recipe]) -> Found:
        """Try every recipe. Raises ContractError or RunnerError when the original itself does not fit or run.

        A KeyboardInterrupt once the float original is judged ends the search with what is judged; one before that,
        or while the models are timed, is passed on.
        """
        candidates = tuple(Candidate(recipe=recipe) for recipe in recipes)
        reserve = min(RESERVE_SHARE * self._options.budget_s, RESERVE_SECONDS * (len(candidates) + 1))
        self._last_build = self._deadline - reserve
        opened, answers = self._original()
        start = _Start(tensor=_input(self._task, opened), opened=opened, answers=answers)
        self._try(candidates[0], start)
        if not candidates[0].racing:
            what = f"the float original cannot be served: {candidates[0].reason}"
            raise BundleError(what, subject=self._task.model.name)
        self._try_all(candidates[1:], replace(start, first=candidates[0]))
        _mark_duplicates(candidates)
        timing = self._time_all(candidates)
        ladder = self._choose(candidates, timing)
        return Found(
            tensor=start.tensor,
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

    def _try_all(self, candidates: tuple[Candidate, ...], start: _Start) -> None:
        try:
            with ThreadPoolExecutor(PARALLEL) as pool:
                list(pool.map(lambda one: self._try(one, start), candidates))
        except KeyboardInterrupt:
            self._stopped = True
            self._say("stopping: what was judged so far is timed and written")
        for one in candidates:
            if one.racing and one.quality is None:
                one.drop_out("not tried", STOPPED)

    def _try(self, candidate: Candidate, start: _Start) -> None:
        """Build a candidate and judge what was made, unless there is a reason not to."""
        if candidate.recipe.full_range_weights and self._profile.model.reduce_range:
            candidate.drop_out("not tried", "the profile asks for 7-bit weights (model.reduce_range)")
            return
        try:
            self._build(candidate, start)
            self._judge(candidate, start)
        except (BuildError, RunnerError) as error:
            candidate.drop_out("failed", str(error))
        except OverError as over:
            candidate.drop_out("not tried", str(over))

    def _build(self, candidate: Candidate, start: _Start) -> None:
        left = self._remaining()
        first = start.first if start.first is not None and candidate.recipe.resumes(start.first.recipe) else None
        path = self._folder / f"{candidate.id}.{self._task.format}"
        plan = BuildPlan(
            recipe_id=candidate.id,
            recipe=candidate.recipe.text,
            skip=len(first.recipe.passes) if first is not None else 0,
            model=str(first.model if first is not None else self._task.model),
            calibration=str(self._calibration),
            count=self._options.calibration,
            tensor=start.tensor,
            out=str(path),
            memory_limit_mb=MEMORY_LIMIT_MB,
        )
        self._say(f"building {candidate.id}")
        built = build(plan, timeout_s=left)
        candidate.path, candidate.sha256, candidate.size = path, hash_file(path), path.stat().st_size
        candidate.build_s = built.seconds
        candidate.changes = (*(first.changes if first is not None else ()), *built.changes)

    def _judge(self, candidate: Candidate, start: _Start) -> None:
        metric, limit = self._task.file.metric, self._options.max_drop
        patience = min(LOAD_TIMEOUT_S, self._remaining())
        self._say(f"judging {candidate.id}")
        with Runner(self._plan(candidate.model), patience_s=patience) as runner:
            if _kinds(runner.opened()) != _kinds(start.opened):
                candidate.drop_out("failed", "its inputs or outputs are not of the original's types")
                return
            outputs = self._answers(runner, self._samples)
            calibration = self._answers(runner, self._calibration)[0]
        with Runner(self._plan(candidate.model, optimise=False), patience_s=patience) as runner:
            exact = self._answers(runner, self._samples, EXACT_SAMPLES)[0]
        answers = outputs[0]
        if not np.isfinite(answers).all():
            candidate.drop_out("failed", "it answers infinite values or NaN")
            return
        candidate.outputs, candidate.calibration = outputs, calibration
        candidate.exactness = compare_exact(metric, answers, exact, self._y)
        candidate.quality = compare(metric, answers, start.answers, self._y, limit=limit, slices=self._slices)
        if exceeds(candidate.quality.drop, limit) and candidate.id not in FLOAT_RECIPES:
            candidate.drop_out("left out", f"loses {candidate.quality.drop:.2f} points, {limit:g} are allowed")

    def _time_all(self, candidates: tuple[Candidate, ...]) -> Measurement:
        # Small ones first: should the time end, what is left out is what a device wants least.
        racing = {one.id: one for one in sorted(candidates, key=lambda one: one.size) if one.racing}
        plans = {
            ORIGINAL: self._plan(self._task.model),
            **{name: self._plan(one.model) for name, one in racing.items()},
        }
        self._say(f"timing {len(plans)} models in turns")
        measured, failures = measure_interleaved(
            plans, seconds=TIMING_SECONDS, deadline=self._deadline, needed=(ORIGINAL, candidates[0].id)
        )
        for name, error in failures.items():
            if name in (ORIGINAL, candidates[0].id):
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
        """Return the seconds left for building and judging. Raises OverError when there are none."""
        left = self._last_build - time.monotonic()
        if self._stopped or left <= 0:
            raise OverError(STOPPED if self._stopped else USED_UP)
        return left


def _subset(count: int, wanted: int) -> NDArray[np.intp]:
    """All samples, or `wanted` of them drawn without order but always the same ones."""
    if wanted >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).permutation(count)[:wanted])


def _input(task: Task, opened: Opened) -> Input:
    info = opened.inputs[0]
    return Input(name=info.name, dtype=task.file.input.dtype, shape=info.shape, sample=task.mapping)


def _kinds(opened: Opened) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the types of inputs and outputs: samples mapped for others would be cast into nonsense."""
    return tuple(info.dtype for info in opened.inputs), tuple(info.dtype for info in opened.outputs)


def _mark_duplicates(candidates: tuple[Candidate, ...]) -> None:
    seen: dict[str, str] = {}
    for one in candidates:
        if not one.racing:
            continue
        if one.sha256 in seen:
            one.drop_out("duplicate", f"the same bytes as {seen[one.sha256]}: what it adds changed nothing here")
        seen.setdefault(one.sha256, one.id)
