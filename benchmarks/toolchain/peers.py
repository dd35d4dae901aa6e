"""Our ladder beside the files that other quantizers make of the same models, judged and timed by the same code.

    python benchmarks/toolchain/peers.py --corpus FOLDER --environments ~/.cache/edgewright-peers --files FOLDER \\
        --bundles FOLDER

The peers' files are made once and kept in `--files` (`peer_files.py`). Every file answers all evaluation samples with
the engine's optimizations on; differences are paired. All files of a task are timed in turns, each in three processes.
Ours are the rungs of `edgewright compress`, made into `--bundles` if they are not there; a task with a .tflite beside
its .onnx has a ladder of both kinds. A peer that fails is in the result with what it said.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.toolchain.dominance import Contender, Jury, Kind, judged
from benchmarks.toolchain.peer_files import TOOLS, PeerBuilder, PeerFile
from benchmarks.toolchain.peer_table import section
from edge_agent.bundle import open_bundle
from edge_bench.environment import environment
from edge_bench.measure import Runner, RunnerError, measure_interleaved
from edge_bench.protocol import RunnerPlan
from edge_bench.task import FORMATS, Task, read_task
from edge_contracts.codec import plain

HERE = Path(__file__).parents[1]
ORIGINAL, AGAIN = "original", "original again"
"""The second is the same file in a process of its own: how far two latencies differ that are the same."""

PATIENCE_S = 1800.0
LOADS = 3
"""Times that every file is loaded to be timed, the others before it or after it: processes of one and the same file
differ by up to a tenth, and those that were loaded first tend to be the slow ones."""

AT_ONCE = 2
"""Files that answer samples at the same time, which is not timed."""


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
    parser.add_argument("--files", type=Path, required=True, help="where the peers' files are made, kept")
    parser.add_argument("--bundles", type=Path, required=True, help="where our bundles are, or are made, by task")
    parser.add_argument("--tasks", nargs="*", help="all of the corpus if not given")
    parser.add_argument("--tools", nargs="*", default=TOOLS, choices=TOOLS)
    parser.add_argument("--profile", default="x86-gateway")
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=1.5, help="of timing for each file")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "peers.json")
    options = parser.parse_args(arguments)
    builder = PeerBuilder(environments=options.environments, files=options.files)
    names = options.tasks or sorted(path.stem for path in options.corpus.glob("*.toml"))
    document: dict[str, Any] = {
        "environment": plain(environment()),
        "max_drop": options.max_drop,
        "megabytes": {},
        "tasks": [],
    }
    for name in names:
        with tempfile.TemporaryDirectory(prefix="edgewright-peers-") as folder:
            document["tasks"].append(
                compared(read_task(options.corpus / f"{name}.toml"), builder, Path(folder), options)
            )
        document["megabytes"] = builder.megabytes()
        options.out.write_text(json.dumps(document, sort_keys=True) + "\n", encoding="utf-8")
    print(section(document))
    return 0


def compared(task: Task, builder: PeerBuilder, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Make what is missing of a task, judge and time every file."""
    files = [File(name=name, kind="float", path=task.model) for name in (ORIGINAL, AGAIN)] + list(rungs(task, options))
    failed = {}
    for made in (one for tool in options.tools for one in made_by(tool, task, builder)):
        if made.failed is None:
            files.append(File(name=made.peer, kind="peer", path=made.path))
        else:
            failed[made.peer] = made.failed
    print(f"{task.file.name}: {len(files)} files", file=sys.stderr)
    found, unmeasured = measured(task, files, folder, options)
    return {
        "task": task.file.name,
        "samples": int(task.y.shape[0]),
        "files": judged(found, Jury(metric=task.file.metric, y=task.y)),
        "failed": failed | unmeasured,
    }


def made_by(tool: str, task: Task, builder: PeerBuilder) -> list[PeerFile]:
    """Return what a tool made; a tool that cannot be installed here fails at all settings, and is tried again."""
    try:
        return builder.made(tool, task)
    except subprocess.CalledProcessError as error:
        said = f"its environment could not be made: pip ended with {error.returncode}"
        return [PeerFile(peer=f"{tool}-{one}", path=builder.files, failed=said) for one in TOOLS[tool]]


def rungs(task: Task, options: argparse.Namespace) -> Iterator[File]:
    """Yield the rungs of our bundles, which are made by the command first if they are not there."""
    sources = {task.file.name: task.path}
    if task.model.with_suffix(".tflite").is_file() and task.format == "onnx":
        name = f"{task.file.name}-tflite"
        sources[name] = options.bundles / f"{name}.toml"
        sources[name].write_text(tflite_task(task), encoding="utf-8")
    for name, source in sources.items():
        bundle = options.bundles / name
        if not bundle.is_dir():
            words = ["compress", str(source), "--profile", options.profile, "--out", str(bundle)]
            words += ["--max-drop", str(options.max_drop)]
            done = subprocess.run([sys.executable, "-m", "edgewright.cli", *words], stdout=subprocess.DEVNULL)
            if done.returncode not in (0, 4):  # 4: nothing was gained, the bundle holds the original
                done.check_returncode()
        opened = open_bundle(bundle)
        for variant in opened.manifest.variants:
            path = opened.model_path(variant)
            yield File(name=variant.id + (path.suffix if path.suffix != ".onnx" else ""), kind="ours", path=path)


def tflite_task(task: Task) -> str:
    """Return the task file of the same task for the .tflite beside its model."""
    spec, texts = task.file, {"model": task.model.with_suffix(".tflite"), "data": task.data}
    quoted = {name: json.dumps(str(path.resolve())) for name, path in texts.items()}
    return (
        f"name = {json.dumps(spec.name)}\nmodel = {quoted['model']}\nmetric = {json.dumps(spec.metric)}\n"
        f"[data]\nfile = {quoted['data']}\n"
        f'[input]\ndtype = "{spec.input.dtype}"\nscale = {spec.input.scale!r}\noffset = {spec.input.offset!r}\n'
    )


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
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked = {name: pool.submit(answered, plan, folder / f"{name}.npz") for name, plan in plans.items()}
    failed = {
        name: str(one.exception())[:300] for name, one in asked.items() if isinstance(one.exception(), RunnerError)
    }
    able = [one for one in files if one.name not in failed]
    timed, late = timed_in_turns([one.name for one in able], plans, options)
    contenders = [
        Contender(
            name=one.name,
            kind=one.kind,
            answers=asked[one.name].result(),
            size=one.path.stat().st_size,
            rounds=timed[one.name],
        )
        for one in able
        if one.name in timed
    ]
    return contenders, failed | {name: str(error)[:300] for name, error in late.items()}


def timed_in_turns(
    names: list[str], plans: dict[str, RunnerPlan], options: argparse.Namespace
) -> tuple[dict[str, tuple[tuple[float, ...], ...]], dict[str, RunnerError]]:
    """Return the median latency of each round of each load of each file, in milliseconds; what cannot be run is in the
    second."""
    rounds: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    failed: dict[str, RunnerError] = {}
    for load in range(LOADS):
        first = load * len(names) // LOADS
        order = [name for name in names[first:] + names[:first] if name not in failed]
        timed, late = measure_interleaved(
            {name: plans[name] for name in order},
            seconds=options.seconds / LOADS,
            rounds=max(1, options.rounds // LOADS),
        )
        failed |= late
        for name, measurement in timed.items():
            rounds[name].append(tuple(float(np.median(values)) for values in measurement.rounds))
    return {name: tuple(found) for name, found in rounds.items() if name not in failed}, failed


def answered(plan: RunnerPlan, out: Path) -> np.ndarray[Any, Any]:
    """Return a file's first output for all samples. Raises RunnerError."""
    with Runner(plan) as runner:
        runner.predict(Path(plan.samples), out, timeout_s=PATIENCE_S)
    with np.load(out, allow_pickle=False) as arrays:
        return np.asarray(arrays["output_0"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
