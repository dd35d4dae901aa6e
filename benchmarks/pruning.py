"""Pruned recipes beside plain int8: drop, bytes and latency of each as a share of plain int8's, one process, in turns.

    python benchmarks/pruning.py --corpus FOLDER [--only mnist_lenet] [--out benchmarks/results/pruning.json]

Plain int8 is the recipe `int8-pt-minmax`. Recipes are those named `prune-*`, as they are: nothing is searched or tuned
to a task. Latencies are medians of rounds in which all models of a task take turns; all rounds are in the result.
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

from edge_agent.samples import to_model
from edge_bench.environment import environment
from edge_bench.task import Task, read_task
from edge_compression.contract import Context, Feeds
from edge_compression.onnx_graph import load, session
from edge_compression.recipe import Recipe, load_recipes
from edge_contracts.codec import plain
from edge_contracts.errors import EdgewrightError
from edge_contracts.manifest import Input

DISTRIBUTIONS = ("numpy", "onnx", "onnxruntime", "torch")
PLAIN = "int8-pt-minmax"
ROUNDS, ROUND_SECONDS = 21, 0.02


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the tasks' .toml files")
    parser.add_argument("--only", default="mnist_lenet,watch_har_cnn1d,ic_resnet8", help="comma-separated task names")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pruning.json")
    arguments = parser.parse_args()
    tasks = [compared(read_task(arguments.corpus / f"{name}.toml")) for name in arguments.only.split(",")]
    document = {"environment": plain(environment(DISTRIBUTIONS)), "tasks": tasks}
    arguments.out.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


def compared(task: Task) -> dict[str, Any]:
    """Build, score and time every pruned recipe of a task."""
    recipes = {one.id: one for one in load_recipes("onnx") if one.id in (PLAIN, "float") or one.id.startswith("prune-")}
    original = task.model.read_bytes()
    tensor = _input(task)
    built: dict[str, dict[str, Any]] = {}
    models: dict[str, bytes] = {}
    for name, recipe in recipes.items():
        started = time.monotonic()
        try:
            models[name], changes = applied(recipe, original, task, tensor)
        except EdgewrightError as error:
            sys.stdout.write(f"{task.file.name:18} {name:26} not made: {error}\n")
            continue
        right = answered(models[name], task, tensor)
        built[name] = {"seconds": time.monotonic() - started, "bytes": len(models[name]), "changes": changes}
        built[name]["score"] = float(right.mean())
    rounds = timed(models, next(_feeds(task.x, tensor)))
    for name, one in built.items():
        ratios = [own / other for own, other in zip(rounds[name], rounds[PLAIN], strict=True)]
        one.update(rounds_ms=[1e3 * seconds for seconds in rounds[name]], latency_to_plain=statistics.median(ratios))
        one.update(
            bytes_to_plain=one["bytes"] / built[PLAIN]["bytes"], drop=100 * (built["float"]["score"] - one["score"])
        )
        sys.stdout.write(
            f"{task.file.name:18} {name:26} {one['drop']:+.2f} points, {one['bytes_to_plain']:.3f} of the bytes, "
            f"{one['latency_to_plain']:.2f} of the latency, {one['seconds']:.0f} s\n"
        )
    return {"task": task.file.name, "recipes": built}


def applied(recipe: Recipe, model: bytes, task: Task, tensor: Input) -> tuple[bytes, list[Any]]:
    """Return what a recipe makes of a model and what each pass changed."""
    training = None if task.training is None else partial(_feeds, task.training, tensor)
    original = unquantised = model
    changes = []
    quantised = False
    for step in recipe.passes:
        context = Context(
            calibration=partial(_feeds, task.calibration[:256], tensor),
            unquantised=unquantised,
            original=original,
            training=training,
        )
        made = step.apply(model, context)
        model, quantised = made.model, quantised or step.quantises
        unquantised = unquantised if quantised else model
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
