"""Whether `edgewright bench` is right: beside a bare loop over the engine, beside MLPerf's LoadGen, on a model compared
with itself and on one made a tenth slower.

    python benchmarks/statistics/bench_trust.py --models A.onnx B.onnx --busy

- `loop`: p50 of the scenario single stream over that of a bare loop over `session.run` on the same inputs, in turns of
  a process each; the median over several pairs of processes.
- `loadgen`: our p50 and p90 over LoadGen's own, each in a process of its own, turns in random order.
- `same`, `slower`: verdicts of `bench compare` on the first model with itself, and on a chain of matrix products with
  a tenth more of them. With `--busy` a process keeps one core busy all the time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_bench.compare import compare_models
from edge_bench.environment import environment
from edge_bench.measure import Runner
from edge_bench.protocol import Drive, RunnerPlan
from edge_contracts.codec import plain

HERE = Path(__file__).parents[1]
TURN_S = 0.15
SIZE, LAYERS = 400, (20, 22)
BARE = """
import os, sys, time
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy, onnxruntime
model, inputs = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
feeds = [{name: one[None]} for one in numpy.load(inputs)]
for line in sys.stdin:
    end, took = time.perf_counter() + float(line), []
    while time.perf_counter() < end:
        feed = feeds[len(took) % len(feeds)]
        start = time.perf_counter_ns()
        session.run(None, feed)
        took.append((time.perf_counter_ns() - start) / 1e6)
    print(numpy.median(took), flush=True)
"""
"""The loop that anybody would write."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="+", required=True, help=".onnx with one input")
    parser.add_argument("--pairs", type=int, default=6, help="pairs of processes beside the loop and LoadGen")
    parser.add_argument("--times", type=int, default=20, help="comparisons of each kind")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each comparison")
    parser.add_argument("--busy", action="store_true", help="keep one core busy while comparing")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "bench-trust.json")
    options = parser.parse_args(arguments)
    document: dict[str, Any] = {"environment": plain(environment()), "busy": options.busy, "loop": {}, "loadgen": {}}
    with tempfile.TemporaryDirectory(prefix="edgewright-trust-") as name:
        folder = Path(name)
        for model in options.models:
            inputs = made_inputs(model, folder / "inputs.npy")
            plan = RunnerPlan(model=str(model), format="onnx", samples=str(inputs))
            document["loop"][model.stem] = beside_loop(plan, options.pairs, folder)
            document["loadgen"][model.stem] = beside_loadgen(plan, options.pairs, folder)
            print(model.stem, summary(document["loop"][model.stem]), document["loadgen"][model.stem]["ratios"][-1])
        with busy(options.busy):
            same = RunnerPlan(model=str(options.models[0]), format="onnx", samples="")
            slower = [chain(folder / f"{layers}.onnx", layers) for layers in LAYERS]
            document["same"] = compared(same, same, options)
            document["slower"] = compared(*slower, options)
    options.out.write_text(json.dumps(document, sort_keys=True) + "\n", encoding="utf-8")
    for kind in ("same", "slower"):
        print(
            kind, {verdict: [one["verdict"] for one in document[kind]].count(verdict) for verdict in ("none", "a", "b")}
        )
    return 0


def beside_loop(plan: RunnerPlan, pairs: int, folder: Path) -> dict[str, Any]:
    """Return medians of turns of both, and the ratio of each pair of processes."""
    rows = []
    for pair in range(pairs):
        words = [sys.executable, "-c", BARE, plan.model, plan.samples]
        with (
            subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as bare,
            Runner(plan) as runner,
        ):
            assert bare.stdin is not None and bare.stdout is not None  # noqa: PT018 - no test
            turns: list[list[float]] = []
            for turn in range(8):
                bare.stdin.write(f"{TURN_S}\n")
                bare.stdin.flush()
                loop = float(bare.stdout.readline())
                order = Drive(scenario="single_stream", seconds=TURN_S, out=str(folder / "block"), seed=turn)
                ours = float(np.median(runner.drive(order)[1]))
                turns.append([ours, loop])
            bare.stdin.close()
        rows.append({"pair": pair, "turns_ms": turns, "ratio": float(np.median([a / b for a, b in turns[1:]]))})
    return {"pairs": rows, "ratio": float(np.median([row["ratio"] for row in rows]))}


def beside_loadgen(plan: RunnerPlan, pairs: int, folder: Path) -> dict[str, Any]:
    """Return p50 and p90 of our driver and LoadGen's in the same process, in turns, and the ratios."""
    told, ratios = [], []
    for _pair in range(pairs):
        with Runner(plan) as runner:
            for turn in range(3):
                common = {"scenario": "single_stream", "seconds": 0.6, "out": str(folder / "block"), "seed": turn}
                _, ours = runner.drive(Drive(**common))
                theirs, _ = runner.drive(Drive(**common, driver="loadgen"))
                said = [float(theirs.summary[f"{share}.00 percentile latency (ms)"]) for share in (50, 90)]
                found = [float(value) for value in np.quantile(ours, (0.5, 0.9))]
                told.append({"ours_ms": found, "loadgen_ms": said, "result": theirs.summary.get("Result is")})
                ratios.append([ours_ms / theirs_ms for ours_ms, theirs_ms in zip(found, said, strict=True)])
    middle = [float(value) for value in np.median(np.array(ratios), axis=0)]
    return {"turns": told, "p50": middle[0], "p90": middle[1], "ratios": [middle]}


def compared(a: RunnerPlan, b: RunnerPlan, options: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    for seed in range(options.times):
        start = time.monotonic()
        one = plain(compare_models(("a", "b"), (a, b), options.seconds, seed))
        found.append(one | {"took_s": time.monotonic() - start})
        print(
            one["verdict"], f"{one['ratio']:.3f} ({one['low']:.3f} to {one['high']:.3f})", file=sys.stderr, flush=True
        )
    return found


def summary(found: dict[str, Any]) -> str:
    return f"p50 over the bare loop's {found['ratio']:.3f}"


def made_inputs(model: Path, path: Path) -> Path:
    """Write random inputs of the model's declared sizes, open ones 1."""
    (info,) = onnx.load(model).graph.input
    shape = [dim.dim_value or 1 for dim in info.type.tensor_type.shape.dim][1:]
    dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
    values = np.random.default_rng(0).random((16, *shape))
    np.save(path, (values * (100 if dtype.kind in "iu" else 1)).astype(dtype))
    return path


def chain(path: Path, layers: int) -> RunnerPlan:
    """Write a model of so many matrix products, each costing the same."""
    generator = np.random.default_rng(0)
    names = ["x", *(f"h{index}" for index in range(layers - 1)), "y"]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(layers)]
    shaped = [helper.make_tensor_value_info(one, TensorProto.FLOAT, [1, SIZE]) for one in ("x", "y")]
    weights = [generator.standard_normal((SIZE, SIZE)).astype(np.float32) / 20 for _ in range(layers)]
    kept = [numpy_helper.from_array(one, f"w{index}") for index, one in enumerate(weights)]
    graph = helper.make_graph(nodes, "m", shaped[:1], shaped[1:], kept)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return RunnerPlan(model=str(path), format="onnx", samples="")


@contextmanager
def busy(wanted: bool) -> Any:
    """Keep one core busy."""
    if not wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        try:
            yield
        finally:
            child.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
