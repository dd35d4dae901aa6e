"""Check the rungs of bundles that `corpus.py --bundles` kept: what does each rung have over each other one?

python benchmarks/toolchain/ladder_merits.py --corpus FOLDER --bundles FOLDER --out MERITS.json

For every ordered pair of rungs of a ladder (but the float original, which is always the last): bytes, peak memory,
latency in rounds taken in turns with its paired 95 % interval, and the points lost on the same samples with theirs.
A rung without an advantage beyond those over another rung is listed under `idle`, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.bundle import open_bundle
from edge_bench.measure import Measurement, Runner, measure_interleaved
from edge_bench.protocol import RunnerPlan
from edge_bench.scenario import write_samples
from edge_bench.task import Task, read_task
from edge_compression.evaluation.pareto import MEMORY_LEAST_MB, MEMORY_STEP, SIZE_STEP
from edge_compression.evaluation.quality import QualityRequest, compare
from edge_compression.evaluation.rung_merit import faster, speed_ratio
from edge_compression.recipes.recipe import FLOAT_RECIPES

SECONDS, ROUNDS, SAMPLES, MEMORY_MB = 1.2, 12, 2000, 2048.0


def rungs_of(task: Task, bundle: Path, samples: int) -> list[dict[str, Any]]:
    """Return what each pair of a bundle's rungs has over each other, the float original left out."""
    opened = open_bundle(bundle)
    variants = {one.id: one for one in opened.manifest.variants if one.id not in FLOAT_RECIPES}
    with tempfile.TemporaryDirectory() as folder:
        fed = Path(folder) / "x"
        write_samples([None if one.samples is None else one.samples[:samples] for one in task.inputs], fed)
        plans = {
            name: RunnerPlan(
                model=str(opened.path(one.file)), format=one.format, samples=str(fed), inputs=task.fed, threads=1,
                optimize=True, memory_limit_mb=MEMORY_MB,
            )
            for name, one in variants.items()
        }  # fmt: skip
        measured, failed = measure_interleaved(plans, seconds=SECONDS, rounds=ROUNDS)
        if failed:
            raise next(iter(failed.values()))
        answers = {name: _answers(plan, fed, Path(folder) / "out.npz") for name, plan in plans.items()}
    sizes = {name: opened.manifest.file(one.file).size for name, one in variants.items()}
    return [_pair(task, (a, b), answers, sizes, measured, samples) for a, b in itertools.permutations(variants, 2)]


def _answers(plan: RunnerPlan, fed: Path, out: Path) -> Any:
    with Runner(plan) as runner:
        runner.predict(fed, out)
    with np.load(out, allow_pickle=False) as arrays:
        return arrays["output_0"]


def _pair(
    task: Task, pair: tuple[str, str], answers: dict[str, Any], sizes: dict[str, int],
    measured: dict[str, Measurement], samples: int,
) -> dict[str, Any]:  # fmt: skip
    a, b = pair
    rounds = {name: [float(np.median(turn)) for turn in measured[name].rounds] for name in pair}
    memory = {name: measured[name].loaded.peak_memory_mb for name in pair}
    lost = compare(QualityRequest(metric=task.metric, limit=0.0), answers[b], answers[a], task.y[:samples])
    speed = speed_ratio(rounds[a], rounds[b])
    found = {
        "bytes": sizes[a] * SIZE_STEP < sizes[b],
        "memory": memory[a] * MEMORY_STEP < memory[b] and memory[a] + MEMORY_LEAST_MB < memory[b],
        "latency": faster(rounds[a], rounds[b]),
        "loss": lost.drop_interval.low > 0.0,
    }
    return {
        "rung": a, "over": b, "has": [name for name, flag in found.items() if flag],
        "bytes": [sizes[a], sizes[b]], "memory_mb": [memory[a], memory[b]],
        "speed": [speed.low, speed.high], "points": [lost.drop_interval.low, lost.drop_interval.high],
        "rounds_ms": [rounds[a], rounds[b]],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the tasks' .toml files")
    parser.add_argument("--bundles", type=Path, required=True, help="folder with a bundle for each task")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "ladder-merits.json")
    arguments = parser.parse_args()
    results, idle = {}, 0
    for bundle in sorted(path for path in arguments.bundles.iterdir() if (path / "manifest.json").exists()):
        task = read_task(arguments.corpus / f"{bundle.name}.toml")
        pairs = rungs_of(task, bundle, arguments.samples)
        empty = [f"{one['rung']} over {one['over']}" for one in pairs if not one["has"]]
        idle += len(empty)
        results[bundle.name] = {"pairs": pairs, "idle": empty}
        sys.stdout.write(f"{bundle.name:30} {len(pairs):2} pairs, without an advantage: {', '.join(empty) or 'none'}\n")
        sys.stdout.flush()
    arguments.out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 1 if idle else 0


if __name__ == "__main__":
    sys.exit(main())
