"""Our ladder beside the files that other quantizers make of the same models, judged and timed by the same code.

    python benchmarks/compress_peers.py --corpus FOLDER --environments ~/.cache/edgewright-peers --bundles FOLDER

Each peer runs at its documented settings in an environment of its own, on the task's calibration samples. Every file
answers all evaluation samples with the engine's optimisations on; differences are paired. All files of a task are
timed in turns, each in its own process. Ours are the rungs of `edgewright compress`, made into `--bundles` if they are
not there. A peer that fails is in the result with what it said.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from contenders import environment_of
from dominance import Contender, Jury, Kind, judged, table
from edge_agent.bundle import open_bundle
from edge_agent.samples import to_model
from edge_bench.environment import environment
from edge_bench.measure import Runner, RunnerError, measure_interleaved
from edge_bench.protocol import RunnerPlan
from edge_bench.task import FORMATS, Task, read_task
from edge_contracts.codec import plain
from edge_contracts.manifest import Input

PEERS = (
    "onnxruntime-static",
    "onnxruntime-dynamic",
    "nncf",
    "onnx_neural_compressor",
    "quark-XINT8",
    "olive",
    "ai_edge_quantizer-weight_only",
    "ai_edge_quantizer-dynamic",
)
"""A peer's folder under `peers/compress`, then the setting its script is given."""

HERE = Path(__file__).parent
OURS = "onnxruntime"
TFLITE = "ai_edge_quantizer"
ORIGINAL = "original"
PATIENCE_S = 1800.0


@dataclass(frozen=True, kw_only=True)
class File:
    """A model file of a task, before it is measured."""

    name: str
    kind: Kind
    path: Path


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the tasks' .toml files")
    parser.add_argument("--environments", type=Path, required=True, help="where the peers are installed, kept")
    parser.add_argument("--bundles", type=Path, required=True, help="where our bundles are, or are made, by task")
    parser.add_argument("--tasks", nargs="*", help="all of the corpus if not given")
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS)
    parser.add_argument("--profile", default="x86-gateway")
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing for each file")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "compress-peers.json")
    options = parser.parse_args(arguments)
    names = options.tasks or sorted(path.stem for path in options.corpus.glob("*.toml"))
    tasks = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="edgewright-peers-") as folder:
            tasks.append(compared(read_task(options.corpus / f"{name}.toml"), Path(folder), options))
        document = {"environment": plain(environment()), "max_drop": options.max_drop, "tasks": tasks}
        options.out.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print("\n".join(table(tasks)))
    return 0


def compared(task: Task, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Make, judge and time every file of one task."""
    files, failed = [File(name=ORIGINAL, kind="float", path=task.model), *rungs(task, options)], {}
    calibration = folder / "calibration.npy"
    np.save(calibration, to_model(task.calibration, _input(task)))
    for peer in options.peers:
        print(f"{task.file.name}: {peer}", file=sys.stderr)
        try:
            files.append(File(name=peer, kind="peer", path=made_by(peer, task, calibration, folder, options)))
        except PeerError as error:
            failed[peer] = str(error)
    found, unmeasured = measured(task, files, folder, options)
    jury = Jury(metric=task.file.metric, y=task.y)
    return {
        "task": task.file.name,
        "samples": int(task.y.shape[0]),
        "files": judged(found, jury),
        "failed": failed | unmeasured,
    }


def _input(task: Task) -> Input:
    return Input(name="x", dtype=task.file.input.dtype, shape=(-1, *task.x.shape[1:]), sample=task.mapping)


def rungs(task: Task, options: argparse.Namespace) -> Iterator[File]:
    """Yield the rungs of our bundle, which is made by the command first if it is not there."""
    bundle = options.bundles / task.file.name
    if not bundle.is_dir():
        words = ["compress", str(task.path), "--profile", options.profile, "--out", str(bundle)]
        words += ["--max-drop", str(options.max_drop)]
        subprocess.run([sys.executable, "-m", "edgewright.cli", *words], check=True, stdout=subprocess.DEVNULL)
    opened = open_bundle(bundle)
    for variant in opened.manifest.variants:
        yield File(name=variant.id, kind="ours", path=opened.model_path(variant))


class PeerError(Exception):
    """A peer made no file; the message is the last it said."""


def made_by(peer: str, task: Task, calibration: Path, folder: Path, options: argparse.Namespace) -> Path:
    """Return the file a peer makes of the task's model, or of the .tflite beside it. Raises PeerError. Five parameters:
    what is quantised, by whom, with what, where to and how."""
    tool, _, setting = peer.partition("-")
    model = task.model.with_suffix(".tflite") if tool == TFLITE else task.model
    if not model.is_file():
        raise PeerError(f"there is no {model.name}")
    try:
        python = Path(sys.executable) if tool == OURS else environment_of(f"compress/{tool}", options.environments)
    except subprocess.CalledProcessError as error:
        raise PeerError(f"its environment could not be made: pip ended with {error.returncode}") from error
    out = folder / f"{peer}{model.suffix}"
    script = HERE / "peers" / "compress" / tool / "run.py"
    words = [str(python), str(script), str(model), str(calibration), str(out), *([setting] if setting else [])]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        raise PeerError(f"took longer than {PATIENCE_S:.0f} s") from None
    if done.returncode != 0 or not out.is_file():
        said = (done.stderr.strip() or done.stdout.strip() or "nothing said").splitlines()[-1]
        raise PeerError(said[:200])
    if out.suffix == ".onnx":
        onnx.save(onnx.load(out), out)  # some leave the weights in a second file: bytes are those of all together
    return out


def measured(
    task: Task, files: list[File], folder: Path, options: argparse.Namespace
) -> tuple[list[Contender], dict[str, str]]:
    """Return every file with its answers and latencies; what cannot be run is in the second result."""
    samples = folder / "samples.npy"
    np.save(samples, task.x)
    plans = {
        one.name: RunnerPlan(
            model=str(one.path), format=FORMATS[one.path.suffix], samples=str(samples), mapping=task.mapping
        )
        for one in files
    }
    answers, failed = {}, {}
    for name, plan in plans.items():
        try:
            answers[name] = answered(plan, samples, folder / "answers.npz")
        except RunnerError as error:
            failed[name] = str(error)[:200]
    timed, late = measure_interleaved(
        {name: plans[name] for name in answers}, seconds=options.seconds, rounds=options.rounds
    )
    contenders = [
        Contender(
            name=one.name,
            kind=one.kind,
            answers=answers[one.name],
            size=one.path.stat().st_size,
            rounds=tuple(float(np.median(values)) for values in timed[one.name].rounds),
        )
        for one in files
        if one.name in timed
    ]
    return contenders, failed | {name: str(error)[:200] for name, error in late.items()}


def answered(plan: RunnerPlan, samples: Path, out: Path) -> np.ndarray[Any, Any]:
    """Return a file's first output for all samples. Raises RunnerError."""
    with Runner(plan) as runner:
        runner.predict(samples, out, timeout_s=PATIENCE_S)
    with np.load(out, allow_pickle=False) as arrays:
        return np.asarray(arrays["output_0"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
