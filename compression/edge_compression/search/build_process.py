"""Building one candidate in a process of its own, under limits: a tool that crashes, hangs or eats memory costs one
candidate and its reason is in the report.

Here: both ends of that process (`python -m edge_compression.search.build_process <BuildPlan JSON> <starter's process
id>`). Which recipes are built is in `search`, what a pass does in `passes`.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from edge_agent.inference.sample_runs import resting
from edge_bench.children import Starter, die_with, run, start
from edge_bench.runner import peak_memory
from edge_compression.pass_api import (
    IDLE,
    LEFT_OUT,
    Changes,
    Context,
    Feeds,
    Foreseeing,
    ImpossibleError,
    NothingToDoError,
    Pass,
)
from edge_compression.recipes.recipe import parse_recipe
from edge_compression.stored_samples import stored_runs
from edge_contracts.codec import StrictRecord
from edge_contracts.errors import BundleError, EdgewrightError
from edge_contracts.limits import MIB
from edge_contracts.manifest import Input

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""As many builds run at a time as there are cores: threads of theirs would only wait for each other."""


class BuildError(BundleError):
    """A recipe could not be applied to this model; the message is the tool's reason."""

    reason = "build"


class UnfitError(BuildError):
    """A recipe is not for this model: one of its passes says so before any work."""

    reason = "unfit"


class RuledOutError(BuildError):
    """A recipe asks for what cannot be done with this model in any recipe: `refusal` tells what."""

    reason = "ruled-out"

    def __init__(self, refusal: BuildRefused, subject: str) -> None:
        super().__init__(f"{refusal.step}: {refusal.text}", subject=subject)
        self.refusal = refusal


class LateError(BuildError):
    """A build was ended because it took more processor time than it was allowed."""

    reason = "late"


LATE_WALL_S, LATE_WALL_TIMES = 120.0, 30.0
"""A build that computes is bounded by its processor time; one that hangs or starves, by so much more time that passes.
"""


class BuildPlan(StrictRecord, frozen=True, kw_only=True):
    """Apply the passes of a recipe after the first `skip`, which `model` has been through already. `calibration` is a
    .npy file of samples in the first tensor's `sample.dtype`, or a folder with one for each of `tensors`, of which
    `count` are used; `training` another one, used whole.
    `seconds` of processor time it may take; None where nobody waits."""

    recipe_id: str
    recipe: str
    skip: int
    model: str
    calibration: str
    count: int
    tensors: tuple[Input, ...]
    out: str
    memory_limit_mb: float
    training: str | None = None
    seconds: float | None = None


class Built(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="built"):
    """What each pass changed, in order, the processor seconds all took, and the process's peak memory."""

    changes: tuple[Changes, ...]
    seconds: float
    peak_memory_mb: float


class BuildRefused(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="refused"):
    """The pass that failed and why; `foreseen`: before any work was done. `place`: it is the pass of this index in its
    recipe and impossible in others as well, `whatever` and `less` as in ImpossibleError; None where it is not."""

    step: str
    text: str
    foreseen: bool = False
    place: int | None = None
    whatever: tuple[str, ...] = ()
    less: str = ""


_result = msgspec.json.Decoder(Built | BuildRefused)
Result = TypeVar("Result")


def build(plan: BuildPlan, *, allowed_s: float, starter: Starter = start) -> Built:
    """Build a candidate in a child process that may take `allowed_s` seconds of processor time. Raises BuildError with
    the tool's reason, LateError when it took more."""
    timed = msgspec.structs.replace(plan, seconds=allowed_s)
    words = ["edge_compression.search.build_process", msgspec.json.encode(timed).decode()]
    late = f"took more than {allowed_s:.0f} s of processor time"
    try:
        wall_s = LATE_WALL_S + LATE_WALL_TIMES * allowed_s
        done = run(words, timeout_s=wall_s, starter=starter, env={**os.environ, **ONE_THREAD})
    except subprocess.TimeoutExpired:
        raise LateError(late, subject=plan.recipe_id) from None
    if done.returncode == -signal.SIGXCPU:
        raise LateError(late, subject=plan.recipe_id)
    if not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        last = said[-1] if said else "no output"
        raise BuildError(f"the build process exited with code {done.returncode}: {last[:400]}", subject=plan.recipe_id)
    result = _result.decode(done.stdout)
    if isinstance(result, BuildRefused):
        if result.place is not None:
            raise RuledOutError(result, plan.recipe_id)
        kind = UnfitError if result.foreseen else BuildError
        raise kind(f"{result.step}: {result.text}", subject=plan.recipe_id)
    return result


def apply_recipe(plan: BuildPlan) -> Built | BuildRefused:
    """Apply the recipe in this process and write the result. Any error of a tool becomes a refusal."""
    started = time.process_time()
    recipe = parse_recipe(plan.recipe, plan.recipe_id)
    model = Path(plan.model).read_bytes()
    training = None if plan.training is None else partial(_samples, plan, plan.training)
    context = Context(
        calibration=partial(_samples, plan, plan.calibration, plan.count),
        unquantized=model,
        original=model,
        training=training,
        seconds_left=None if plan.seconds is None else partial(_left, plan.seconds),
        constants={one.name: resting(one) for one in plan.tensors if one.constant is not None},
    )
    steps = recipe.passes[plan.skip :]
    for step in steps:
        unfit = _tried(partial(step.foresee, model, context)) if isinstance(step, Foreseeing) else None
        if unfit is not None:
            return BuildRefused(step=_name(step), text=unfit.text, foreseen=True)
    made = _applied(steps, model, context)
    if isinstance(made, BuildRefused):
        place = made.place
        return made if place is None else msgspec.structs.replace(made, place=plan.skip + place)
    Path(plan.out).write_bytes(made.model)
    seconds = time.process_time() - started
    return Built(changes=made.changes, seconds=seconds, peak_memory_mb=peak_memory() / MIB)


@dataclass(frozen=True, kw_only=True)
class _Made:
    model: bytes
    changes: tuple[Changes, ...]


@dataclass(frozen=True, kw_only=True)
class _Unfit:
    """Why a pass gave nothing; `idle`: there was nothing for it to do."""

    text: str
    idle: bool
    impossible: ImpossibleError | None = None


def _applied(steps: Sequence[Pass], model: bytes, context: Context) -> _Made | BuildRefused:
    """Apply passes one after another. One that finds nothing to do, or only refines and fails, is left out and its
    entry says why; the recipe is refused when no other pass of it but those that refine did anything."""
    given, changes = model, list[Changes]()
    quantized = worked = False
    idle: BuildRefused | None = None
    for place, step in enumerate(steps):
        result = _tried(partial(step.apply, model, context))
        refines = bool(getattr(step, "refines", False))
        if isinstance(result, _Unfit):
            refusal = BuildRefused(step=_name(step), text=result.text)
            if result.impossible is not None:
                known = result.impossible
                return msgspec.structs.replace(refusal, place=place, whatever=known.whatever, less=known.less)
            if not refines and not result.idle:
                return refusal
            idle = idle or (None if refines else refusal)
            changes.append({"pass": _name(step), LEFT_OUT: result.text, **({IDLE: 1} if result.idle else {})})
            continue
        model, worked = result.model, worked or not refines
        changes.append({"pass": _name(step), **result.changed})
        quantized = quantized or step.quantizes
        if not quantized:
            context = replace(context, unquantized=model)
    if idle is not None and not worked:
        return idle
    if not worked and len(model) > len(given):
        changes = [{"pass": _name(step), LEFT_OUT: "the file would be larger than it was"} for step in steps]
        model = given
    return _Made(model=model, changes=tuple(changes))


def _tried(action: Callable[[], Result]) -> Result | _Unfit:
    """Return what a pass gave, or why it gave nothing."""
    try:
        return action()
    except EdgewrightError as error:
        impossible = error if isinstance(error, ImpossibleError) else None
        return _Unfit(text=str(error), idle=isinstance(error, NothingToDoError), impossible=impossible)
    except Exception as error:  # the tools raise anything; its kind and text are the reason reported
        return _Unfit(text=f"{type(error).__name__}: {str(error)[:500]}", idle=False)


def _name(step: Pass) -> str:
    return str(type(step).__struct_config__.tag)  # type: ignore[attr-defined]


def _left(allowed_s: float) -> float:
    return allowed_s - time.process_time()


def _samples(plan: BuildPlan, path: str, count: int | None = None) -> Iterator[Feeds]:
    runs = stored_runs(plan.tensors, Path(path))
    for index in range(runs.count if count is None else min(count, runs.count)):
        yield runs.feeds(index)


def main(arguments: list[str]) -> int:
    """Run the plan: the arguments are the plan as JSON and the parent's process id. The tools print: only our own
    descriptor carries the result."""
    die_with(arguments[1])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    plan = msgspec.json.decode(arguments[0], type=BuildPlan)
    limit = int(plan.memory_limit_mb * MIB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    if plan.seconds is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(plan.seconds), resource.RLIM_INFINITY))
    answers.write(msgspec.json.encode(apply_recipe(plan)))
    answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
