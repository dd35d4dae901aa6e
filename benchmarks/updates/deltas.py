"""What a changed model costs on the wire: per-tensor deltas against what else one could send.

    python benchmarks/updates/deltas.py --corpus PATH --out benchmarks/results/deltas.json
    python benchmarks/updates/deltas.py --corpus PATH --tasks watch_har_cnn1d --rounds 1

Pairs come from `fine_tune.py`: the last layer trained, all layers trained a little and more, each as float32 and as
int8 with kept and with fresh scales. Methods are in `delta_methods.py`: the delta of the product (zstd and zlib), the
whole new file by zstd -19, bsdiff4, and content-defined chunks with zstd. Each runs in a process of its own, one after
the other in each round; encoding and decoding apart. A slow encoder is run once. Speed is compared in CPU time.
Medians; every sample is kept. Needs torch and bsdiff4.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from benchmarks.updates.delta_methods import METHODS
from benchmarks.updates.fine_tuned_pairs import TRAININGS, fine_tuned, quantized, read_task, requantized

TASKS = ("watch_har_cnn1d", "mnist_lenet", "ic_resnet8", "imagenet_efficientnet_lite0")
TARGETS = {
    "last layer": "at most 5 % of the file",
    "small change of all layers": "at most 25 % of the file",
    "encode": "at least 20 times faster than bsdiff4, for files of some megabytes",
}


def make_pairs(corpus: Path, names: list[str], folder: Path) -> list[dict[str, Any]]:
    """Train, quantize and write every pair to `folder`; return what they are. What is there already is used."""
    index = folder / "pairs.json"
    pairs: list[dict[str, Any]] = json.loads(index.read_text()) if index.exists() else []
    for name in names:
        if any(pair["task"] == name for pair in pairs):
            continue
        task = read_task(corpus, name)
        old = quantized(task, task.model, folder)
        for training in TRAININGS:
            print(f"{name}: training {training.name}", file=sys.stderr)
            new = fine_tuned(task, training)
            made = {
                "float32": (task.model, new),
                "int8, kept scales": (old, requantized(old, new)),
                "int8, fresh scales": (old, quantized(task, new, folder)),
            }
            pairs += [_written(folder, name, training.name, kind, *models) for kind, models in made.items()]
        index.write_text(json.dumps(pairs))
    return [pair for pair in pairs if pair["task"] in names]


def _written(
    folder: Path, task: str, training: str, kind: str, old: onnx.ModelProto, new: onnx.ModelProto
) -> dict[str, Any]:
    paths = []
    for model in (old, new):
        data = model.SerializeToString()
        path = folder / f"{hashlib.sha256(data).hexdigest()}.onnx"
        path.write_bytes(data)
        paths.append(path.name)
    return {"task": task, "training": training, "kind": kind, "files": paths, **_moved(old, new, kind)}


def _moved(old: onnx.ModelProto, new: onnx.ModelProto, kind: str) -> dict[str, float]:
    """Return the share of the weights that changed and, of floats, by how much: the median of |change| / |weight|."""
    dtype = TensorProto.FLOAT if kind == "float32" else TensorProto.INT8
    before, after = (
        np.concatenate([numpy_helper.to_array(t).ravel() for t in m.graph.initializer if t.data_type == dtype])
        for m in (old, new)
    )
    moved = before != after
    found = {"moved": round(float(moved.mean()), 6)}
    if kind == "float32":
        change = np.abs(after[moved] - before[moved]) / np.maximum(np.abs(before[moved]), 1e-12)
        found["median_change"] = float(np.median(change)) if moved.any() else 0.0
    return found


def measure(pair: dict[str, Any], folder: Path, rounds: int) -> dict[str, Any]:
    """Return the pair with what every method cost: samples and their medians."""
    base, target = (folder / name for name in pair["files"])
    script = str(Path(__file__).with_name("delta_methods.py"))
    words = [sys.executable, script, str(base), str(target), str(rounds)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return {**pair, "bytes": target.stat().st_size, **summary(json.loads(done.stdout))}


def summary(methods: dict[str, Any]) -> dict[str, Any]:
    """Add the medians to what every method cost, and by how much the delta is encoded faster than bsdiff4's."""
    for found in methods.values():
        found["bytes"] = int(found["encode"][0]["bytes"])
        for stage in ("encode", "decode"):
            for what in ("seconds", "cpu_s", "grown_mb"):
                found[f"{stage}_{what}"] = round(statistics.median(run[what] for run in found[stage]), 4)
    delta, other = methods["delta, zstd"], methods["bsdiff4"]
    ratios = [b["cpu_s"] / a["cpu_s"] for a, b in zip(delta["encode"], other["encode"], strict=False)]
    return {"encode_speed_up": round(statistics.median(ratios), 1), "methods": methods}


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table: bytes as shares of the new file."""
    names = list(METHODS)
    head = [
        "model",
        "trained",
        "as",
        "kB",
        "weights moved",
        *names,
        "encode CPU s",
        "bsdiff4 / delta",
        "decode CPU s",
        "decode MB",
    ]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for found in results:
        shares = [f"{100 * found['methods'][name]['bytes'] / found['bytes']:.1f} %" for name in names]
        delta = found["methods"]["delta, zstd"]
        cells = [found["task"], found["training"], found["kind"], f"{found['bytes'] / 1000:,.0f}"]
        cells += [f"{100 * found['moved']:.2f} %", *shares, f"{delta['encode_cpu_s']:.3f}"]
        cells += [
            f"{found['encode_speed_up']:.0f}",
            f"{delta['decode_cpu_s']:.3f}",
            f"{delta['decode_grown_mb']:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Make the pairs, measure, print the table and write every sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the tasks' models, data and TOML files")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=Path, help="keep the pairs here, and use those that are here already")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.pairs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        pairs = make_pairs(arguments.corpus, arguments.tasks, folder)
        results = []
        for pair in pairs:
            results.append(measure(pair, folder, arguments.rounds))
            print(table(results[-1:]).splitlines()[-1], file=sys.stderr)
    print(table(results))
    if arguments.out is not None:
        report = {
            "benchmark": "deltas",
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
            "rounds": arguments.rounds,
            "targets": TARGETS,
            "results": results,
        }
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
