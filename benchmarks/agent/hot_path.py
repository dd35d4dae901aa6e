"""What a call through the guarded pipeline costs over ONNX Runtime's own `session.run`, in one process, in turns.

    python benchmarks/agent/hot_path.py MODEL.onnx ... --out benchmarks/results/hot-path.json

Four callers are called with the same sample, one after the other, round by round, in an order drawn anew each time: the
public `InferenceSession.run`, as a bare script calls it; `Runtime.infer` with its checks, guards, counters and
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.plain_bundle import make_plain_bundle
from edge_agent import Runtime
from edge_agent.inference.counters import Counters
from edge_bench.environment import environment
from edge_contracts.codec import plain

BARE, GUARDED, COUNTING, NOTHING = "session.run", "Runtime.infer", "counting", "nothing"
WARM_UP = 200


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help="ONNX models with one float32 input")
    parser.add_argument("--rounds", type=int, default=5000)
    parser.add_argument("--out", type=Path, help="write all samples here as JSON")
    options = parser.parse_args(arguments)
    found = [of_model(model, options.rounds) for model in options.models]
    if options.out is not None:
        document = {"benchmark": "hot-path", "environment": plain(environment()), "models": found}
        options.out.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return 0


def of_model(model: Path, rounds: int) -> dict[str, Any]:
    """Measure one model, and print and return what was found."""
    with tempfile.TemporaryDirectory() as folder:
        samples = measure(callers(model, Path(folder) / "bundle"), rounds)
    table = summary(samples)
    for name, row in table.items():
        print(f"{model.name:24} {name:14} median {row['median_us']:8.2f} µs   ratio to {BARE} {row['ratio']:.3f}")
    return {"model": model.name, "summary": table, "samples_ns": samples}


def callers(model: Path, folder: Path) -> dict[str, Callable[[], object]]:
    """Return what is compared, each ready to be called."""
    import onnxruntime  # here, because edge_agent comes first and switches its reports off

    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = session_options.inter_op_num_threads = 1
    session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(model), session_options, providers=["CPUExecutionProvider"])
    tensor = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in tensor.shape]
    feed = {tensor.name: np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    runtime, answers = Runtime.open(make_plain_bundle(model, folder)), Counters().answers("local/float")

    def count() -> None:
        start = time.monotonic_ns()
        answers.count((time.monotonic_ns() - start) // 1000)

    return {
        BARE: lambda: session.run(None, feed),
        GUARDED: lambda: runtime.infer(feed),
        COUNTING: count,
        NOTHING: lambda: None,
    }


def measure(callers: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[int]]:
    """Return each caller's times in nanoseconds, one of each a round, in an order drawn anew each time: whoever comes
    right after itself more often than the others finds the caches warm."""
    shuffle = random.Random(0).shuffle  # noqa: S311 - an order, no secret
    turns = list(callers.items())
    for call in callers.values():
        for _ in range(WARM_UP):
            call()
    samples: dict[str, list[int]] = {name: [] for name in callers}
    for _ in range(rounds):
        shuffle(turns)
        for name, call in turns:
            start = time.perf_counter_ns()
            call()
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
