"""Building one candidate in a process of its own, under limits: a tool that crashes, hangs or eats memory costs one
candidate and its reason is in the report.

Here: both ends of that process (`python -m edge_compression.build <BuildPlan JSON>`). Which recipes are built is in
`search`, what a pass does in `passes`.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.samples import to_model
from edge_bench.runner import peak_memory
from edge_compression.contract import Applied, Changes, Context, Feeds, Pass
from edge_compression.recipe import parse_recipe
from edge_contracts.codec import StrictRecord
from edge_contracts.errors import BundleError, EdgewrightError
from edge_contracts.limits import MIB
from edge_contracts.manifest import Input

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""As many builds run at a time as there are cores: threads of theirs would only wait for each other."""


class BuildError(BundleError):
    """A recipe could not be applied to this model; the message is the tool's reason."""

    reason = "build"


class BuildPlan(StrictRecord, frozen=True, kw_only=True):
    """Apply the passes of a recipe after the first `skip`, which `model` has been through already. `calibration` is a
    .npy file of samples in `tensor.sample.dtype`, of which `count` are used; `training` another one, used whole."""

    recipe_id: str
    recipe: str
    skip: int
    model: str
    calibration: str
    count: int
    tensor: Input
    out: str
    memory_limit_mb: float
    training: str | None = None


class Built(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="built"):
    """What each pass changed, in order, how long all took, and the process's peak memory."""

    changes: tuple[Changes, ...]
    seconds: float
    peak_memory_mb: float


class Refused(StrictRecord, frozen=True, kw_only=True, tag_field="type", tag="refused"):
    """The pass that failed and why."""

    step: str
    text: str


_result = msgspec.json.Decoder(Built | Refused)


def build(plan: BuildPlan, *, timeout_s: float) -> Built:
    """Build a candidate in a child process. Raises BuildError with the tool's reason."""
    command = [sys.executable, "-m", "edge_compression.build", msgspec.json.encode(plan).decode()]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=timeout_s, check=False, env={**os.environ, **ONE_THREAD}
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"took longer than {timeout_s:.0f} s", subject=plan.recipe_id) from None
    if not done.stdout:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        last = words[-1] if words else "nothing said"
        raise BuildError(f"the tool ended with {done.returncode}: {last[:400]}", subject=plan.recipe_id)
    result = _result.decode(done.stdout)
    if isinstance(result, Refused):
        raise BuildError(f"{result.step}: {result.text}", subject=plan.recipe_id)
    return result


def apply_recipe(plan: BuildPlan) -> Built | Refused:
    """Apply the recipe in this process and write the result. Any error of a tool becomes a refusal."""
    started = time.monotonic()
    recipe = parse_recipe(plan.recipe, plan.recipe_id)
    model = Path(plan.model).read_bytes()
    original = unquantised = model
    training = None if plan.training is None else partial(_samples, plan, plan.training)
    changes: list[Changes] = []
    for step in recipe.passes[plan.skip :]:
        name = type(step).__struct_config__.tag
        context = Context(
            calibration=partial(_samples, plan, plan.calibration, plan.count),
            unquantised=unquantised,
            original=original,
            training=training,
        )
        applied = _apply(step, model, context)
        if isinstance(applied, str):
            return Refused(step=str(name), text=applied)
        model = applied.model
        changes.append({"pass": str(name), **applied.changed})
        if not step.quantises:
            unquantised = model
    Path(plan.out).write_bytes(model)
    seconds = time.monotonic() - started
    return Built(changes=tuple(changes), seconds=seconds, peak_memory_mb=peak_memory() / MIB)


def _apply(step: Pass, model: bytes, context: Context) -> Applied | str:
    """Return what a pass made, or why it made nothing."""
    try:
        return step.apply(model, context)
    except EdgewrightError as error:
        return str(error)
    except Exception as error:  # the tools raise anything; its kind and text are the reason reported
        return f"{type(error).__name__}: {str(error)[:500]}"


def _samples(plan: BuildPlan, path: str, count: int | None = None) -> Iterator[Feeds]:
    samples = np.load(path, mmap_mode="r", allow_pickle=False)
    for index in range(samples.shape[0] if count is None else min(count, samples.shape[0])):
        yield {plan.tensor.name: to_model(np.ascontiguousarray(samples[index : index + 1]), plan.tensor)}


def main(arguments: list[str]) -> int:
    """Run the plan given as one JSON argument. The tools print: only our own descriptor carries the result."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    plan = msgspec.json.decode(arguments[0], type=BuildPlan)
    limit = int(plan.memory_limit_mb * MIB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    answers.write(msgspec.json.encode(apply_recipe(plan)))
    answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
