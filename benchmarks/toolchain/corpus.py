"""Run `edgewright compress` on every task of a corpus folder, one after another, and write one JSON with the results.

python benchmarks/toolchain/corpus.py --corpus FOLDER --profile x86-gateway --out benchmarks/results/compression.json

Every task has the default budget unless `--budget` says otherwise. The peak memory is the sum over all processes of a
search, shared pages counted once, looked at once a second. The CPU seconds are those of all its processes together,
from the kernel's accounts: on a busy machine they say more of the effort than the seconds that passed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

LOOK_S = 1.0
NOTHING_GAINED = 4
"""Exit code of a search that ended in the float original alone: an answer, too."""


def compress(task: Path, profile: str, bundles: Path | None, more: list[str]) -> dict[str, Any]:
    """Compress one task in a process of its own; return its report, or what it said when it failed. The bundle stays
    in `bundles` by the task's name, if that is given."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = bundles / task.stem if bundles else Path(folder) / "bundle"
        words = ["compress", str(task), "--profile", profile, "--out", str(bundle), "--force", "--json", *more]
        out, said = Path(folder) / "out", Path(folder) / "said"
        started, before = time.monotonic(), cpu_seconds()
        with out.open("wb") as stdout, said.open("wb") as stderr:
            running = subprocess.Popen([sys.executable, "-m", "edgewright.cli", *words], stdout=stdout, stderr=stderr)
            peak = watch(running)
        seconds, cpu = time.monotonic() - started, cpu_seconds() - before
        if running.returncode not in (0, NOTHING_GAINED):
            last = said.read_text(errors="replace").splitlines()[-1:]
            return {"task": task.stem, "seconds": seconds, "error": last}
        report = json.loads(out.read_bytes())
    del report["bundle"]
    return {"task": task.stem, "seconds": seconds, "cpu_seconds": cpu, "peak_memory_mb": peak, **report}


def cpu_seconds() -> float:
    """Return the processor time of the children that ended so far, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def watch(running: subprocess.Popen[bytes]) -> float:
    """Wait for a process and return the peak memory of it and its children, in megabytes."""
    peak = 0.0
    while True:
        try:
            peak = max(peak, sum(_memory(one) for one in _tree(running.pid)) / 2**20)
            running.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            continue
        return peak


def _tree(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:  # ended since
        return 0


def line(result: dict[str, Any]) -> str:
    """Return one line for people: the best 8-bit variant and the ladder with drops and sizes."""
    if "error" in result:
        return f"{result['task']:30} FAILED {result['error']}"
    rungs = [
        f"{one['id']} ({one['drop']:+.2f} pt, {one['size'] / result['original_size']:.2f} B, "
        f"{one['latency_ms'] / result['original']['latency']['p50']:.2f} t)"
        for one in result["variants"]
    ]
    return (
        f"{result['task']:30} {result['original_score']:.4f} {result['seconds']:5.0f} s "
        f"{result['cpu_seconds']:5.0f} CPU s {result['peak_memory_mb']:5.0f} MB  "
        f"8 bits: {result['eight_bit']['statement']}; ladder: {', '.join(rungs)}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the tasks' .toml files")
    parser.add_argument("--profile", default="x86-gateway")
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--budget", default=None, help="for each task; the default is by the model's size")
    parser.add_argument("--bundles", type=Path, help="folder in which the bundles are kept, by task")
    parser.add_argument("--only", default="", help="comma-separated task names")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "compression.json")
    arguments = parser.parse_args()
    only = {name for name in arguments.only.split(",") if name}
    more = ["--max-drop", str(arguments.max_drop), *(["--budget", arguments.budget] if arguments.budget else [])]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    results = []
    for task in sorted(arguments.corpus.glob("*.toml"), key=lambda path: path.with_suffix(".npz").stat().st_size):
        if only and task.stem not in only:
            continue
        results.append(compress(task, arguments.profile, arguments.bundles, more))
        sys.stdout.write(line(results[-1]) + "\n")
        sys.stdout.flush()
        arguments.out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 1 if any("error" in result for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
