"""What a call through the guarded pipeline costs over ONNX Runtime's own `session.run`, in one process, in turns.

    python benchmarks/agent/hot_path.py TASK.toml ... --out benchmarks/results/hot-path.json

Each task is compressed first, so that the bundle carries all that a user's does. Four callers are called with the same
sample, one of sixteen of the probe set in turns, one after the other, round by round, in an order drawn anew each time:
the public `InferenceSession.run`, as a bare script calls it; `Runtime.infer` with its checks, guards, counters and
histogram; the counting alone, with the two looks at the clock it takes; and nothing, which is what measuring costs.
Reported are medians of the rounds' ratios, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.compressed_bundle import DEMO_TASK, Compressed, compressed_bundle
from edge_agent import Runtime
from edge_agent.inference.counters import Counters
from edge_agent.ports import Tensors
from edge_bench.environment import environment
from edge_contracts.codec import plain

BARE, GUARDED, COUNTING, NOTHING = "session.run", "Runtime.infer", "counting", "nothing"
WARM_UP = 200


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path, nargs="*", default=[DEMO_TASK], help="tasks to compress, or bundles")
    parser.add_argument("--budget", help="of each compression, such as 60s; default: as the command has it")
    parser.add_argument("--rounds", type=int, default=5000)
    parser.add_argument("--out", type=Path, help="write all samples here as JSON")
    options = parser.parse_args(arguments)
    found = [of_task(task, options.rounds, options.budget) for task in options.tasks]
    if options.out is not None:
        document = {"benchmark": "hot-path", "environment": plain(environment()), "models": found}
        options.out.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return 0


def of_task(task: Path, rounds: int, budget: str | None) -> dict[str, Any]:
    """Measure one bundle, and print and return what was found."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = compressed_bundle(task, Path(folder) / "bundle", budget=budget)
        model = f"{bundle.manifest.name}/{bundle.manifest.variants[0].id}"
        name = bundle.manifest.inputs[0].name
        samples = measure(callers(bundle), [{name: sample} for sample in bundle.samples], rounds)
    table = summary(samples)
    for name, row in table.items():
        print(f"{model:24} {name:14} median {row['median_us']:8.2f} µs   ratio to {BARE} {row['ratio']:.3f}")
    return {"model": model, "summary": table, "samples_ns": samples}


def callers(bundle: Compressed) -> dict[str, Callable[[Tensors], object]]:
    """Return what is compared, each ready to be called; of the bundle that is the variant that answers first."""
    import onnxruntime  # after edge_agent, which turns its reports off

    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = session_options.inter_op_num_threads = 1
    session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(bundle.model), session_options, providers=["CPUExecutionProvider"])
    runtime, answers = Runtime.open(bundle.folder), Counters().answers("local/float")

    def count(_: Tensors) -> None:
        start = time.monotonic_ns()
        answers.count((time.monotonic_ns() - start) // 1000)

    return {
        BARE: lambda feed: session.run(None, feed),
        GUARDED: runtime.infer,
        COUNTING: count,
        NOTHING: lambda _: None,
    }


def measure(
    callers: dict[str, Callable[[Tensors], object]], feeds: Sequence[Tensors], rounds: int
) -> dict[str, list[int]]:
    """Return each caller's times in nanoseconds, one of each a round, in an order drawn anew each time: whoever comes
    right after itself more often than the others finds the caches warm."""
    shuffle = random.Random(0).shuffle  # noqa: S311 - an order, no secret
    turns = list(callers.items())
    for call in callers.values():
        for _ in range(WARM_UP):
            call(feeds[0])
    samples: dict[str, list[int]] = {name: [] for name in callers}
    for number in range(rounds):
        shuffle(turns)
        feed = feeds[number % len(feeds)]
        for name, call in turns:
            start = time.perf_counter_ns()
            call(feed)
            samples[name].append(time.perf_counter_ns() - start)
    return samples


def summary(samples: dict[str, list[int]]) -> dict[str, dict[str, float]]:
    """Return medians, and the median of each round's ratio to the bare session."""
    bare = samples[BARE]
    return {
        name: {
            "median_us": statistics.median(times) / 1000,
            "ratio": statistics.median(time / base for time, base in zip(times, bare, strict=True)),
        }
        for name, times in samples.items()
    }


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
