"""Pruned recipes beside plain int8: drop, bytes and latency of each as a share of plain int8's, one process, in turns.

    python benchmarks/toolchain/pruning.py --corpus FOLDER [--only mnist_lenet] [--recipes prune-distill]

Plain int8 is the recipe `int8-pt-minmax`. Recipes are those whose name begins with `prune`, as they are: nothing is
searched or tuned to a task. Latencies are medians of rounds in which all models of a task take turns. All rounds are in
the result, and for each evaluation sample whether it was answered right, as bits. Tasks not asked for are left in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.inference.samples import to_model
from edge_bench.environment import environment
from edge_bench.task import Task, read_task
from edge_compression.evaluation.paired_statistics import flips, two_sided
from edge_compression.onnx_tools.graph import load, session
from edge_compression.pass_api import Context, Feeds
from edge_compression.recipes.recipe import Recipe, load_recipes
from edge_contracts.codec import plain
from edge_contracts.errors import EdgewrightError
from edge_contracts.manifest import Input

DISTRIBUTIONS = ("numpy", "onnx", "onnxruntime", "torch")
PLAIN = "int8-pt-minmax"
ROUNDS, ROUND_SECONDS = 21, 0.02


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the tasks' .toml files")
    parser.add_argument("--only", default="", help="comma-separated task names; all with training samples if not given")
    parser.add_argument("--recipes", default="prune", help="what the names of the recipes tried begin with")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "pruning.json")
    arguments = parser.parse_args()
    document = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
    only = {name for name in arguments.only.split(",") if name}
    for path in sorted(arguments.corpus.glob("*.toml")):
        task = read_task(path)
        if path.stem not in only and (only or task.training is None):
            continue
        document[path.stem] = compared(task, arguments.recipes)
        arguments.out.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


def compared(task: Task, begins: str) -> dict[str, Any]:
    """Build, score and time the recipes of a task whose names begin so."""
    every = load_recipes("onnx")
    recipes = {one.id: one for one in every if one.id in (PLAIN, "float") or one.id.startswith(begins)}
    original = task.model.read_bytes()
    tensor = _input(task)
    built: dict[str, dict[str, Any]] = {}
    models: dict[str, bytes] = {}
    right: dict[str, Any] = {}
    for name, recipe in recipes.items():
        started, spent = time.monotonic(), time.process_time()
        try:
            models[name], changes = applied(recipe, original, task, tensor)
        except EdgewrightError as error:
            sys.stdout.write(f"{task.file.name:18} {name:26} not made: {error}\n")
            continue
        built[name] = {
            "seconds": round(time.monotonic() - started, 1),
            "cpu_seconds": round(time.process_time() - spent, 1),
            "bytes": len(models[name]),
            "changes": changes,
        }
        right[name] = answered(models[name], task, tensor)
    rounds = timed(models, next(_feeds(task.x, tensor)))
    for name, one in built.items():
        ratios = [own / other for own, other in zip(rounds[name], rounds[PLAIN], strict=True)]
        one.update(
            rounds_ms=[round(1e3 * seconds, 5) for seconds in rounds[name]],
            latency_to_plain=statistics.median(ratios),
            bytes_to_plain=one["bytes"] / built[PLAIN]["bytes"],
            right=np.packbits(right[name]).tobytes().hex(),
            **_lost(right["float"], right[name]),
        )
        sys.stdout.write(f"{task.file.name:18} {name:26} {_words(one)}\n")
    return {"environment": plain(environment(DISTRIBUTIONS)), "samples": len(task.y), "recipes": built}


def _words(one: dict[str, Any]) -> str:
    return (
        f"{one['drop']:+.2f} points ({one['drop_low']:.2f} to {one['drop_high']:.2f}), {one['bytes_to_plain']:.3f} of "
        f"the bytes, {one['latency_to_plain']:.2f} of the latency, {one['seconds']:.0f} s, {one['cpu_seconds']:.0f} s "
        "of CPU"
    )


def _lost(before: Any, after: Any) -> dict[str, float]:
    """Return the points lost on the same samples and their 95 % interval."""
    gained = before.astype(float) - after.astype(float)
    quantile = flips(gained)
    assert quantile is not None
    interval = two_sided(quantile)
    return {"drop": 100 * float(gained.mean()), "drop_low": interval.low, "drop_high": interval.high}


def applied(recipe: Recipe, model: bytes, task: Task, tensor: Input) -> tuple[bytes, list[Any]]:
    """Return what a recipe makes of a model and what each pass changed."""
    training = None if task.training is None else partial(_feeds, task.training, tensor)
    original = unquantized = model
    changes = []
    quantized = False
    for step in recipe.passes:
        context = Context(
            calibration=partial(_feeds, task.calibration[:256], tensor),
            unquantized=unquantized,
            original=original,
            training=training,
        )
        made = step.apply(model, context)
        model, quantized = made.model, quantized or step.quantizes
        unquantized = unquantized if quantized else model
        changes.append(made.changed)
    return model, changes


def answered(model: bytes, task: Task, tensor: Input) -> Any:
    """Return for each evaluation sample whether the model answers right."""
    opened = session(model)
    found = [int(opened.run(None, feeds)[0].argmax()) for feeds in _feeds(task.x, tensor)]
    return np.array(found) == task.y


def timed(models: dict[str, bytes], feeds: Feeds) -> dict[str, list[float]]:
    """Return seconds of one answer in each round, all models in turns."""
    opened = {name: session(model) for name, model in models.items()}
    rounds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, one in opened.items():
            runs, started = 0, time.perf_counter()
            while time.perf_counter() - started < ROUND_SECONDS:
                one.run(None, feeds)
                runs += 1
            rounds[name].append((time.perf_counter() - started) / runs)
    return rounds


def _input(task: Task) -> Input:
    name = load(task.model.read_bytes()).graph.input[0].name
    return Input(name=name, dtype=task.file.input.dtype, shape=(-1, *task.x.shape[1:]), sample=task.mapping)


def _feeds(samples: Any, tensor: Input) -> Iterator[Feeds]:
    for index in range(len(samples)):
        yield {tensor.name: to_model(np.ascontiguousarray(samples[index : index + 1]), tensor)}


if __name__ == "__main__":
    sys.exit(main())
