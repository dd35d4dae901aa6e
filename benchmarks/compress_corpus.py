"""Run `edgewright compress` on every task of a corpus folder, one after another, and write one JSON with the results.

python benchmarks/compress_corpus.py --corpus FOLDER --profile x86-gateway --out benchmarks/results/compression.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def compress(task: Path, profile: str, max_drop: float, budget: str) -> dict[str, Any]:
    """Compress one task in a process of its own; return its report, or what it said when it failed."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["compress", str(task), "--profile", profile, "--max-drop", str(max_drop), "--budget", budget]
        words += ["--out", str(Path(folder) / "bundle"), "--json"]
        started = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "edgewright.cli", *words], capture_output=True, check=False)
        seconds = time.monotonic() - started
    if done.returncode != 0:
        return {"task": task.stem, "seconds": seconds, "error": done.stderr.decode(errors="replace").splitlines()[-1:]}
    report = json.loads(done.stdout)
    del report["bundle"]
    return {"task": task.stem, "seconds": seconds, **report}


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
        f"{result['task']:30} {result['original_score']:.4f} {result['seconds']:5.0f} s  "
        f"8 bits: {result['eight_bit']['statement']}; ladder: {', '.join(rungs)}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the tasks' .toml files")
    parser.add_argument("--profile", default="x86-gateway")
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--budget", default="15m")
    parser.add_argument("--only", default="", help="comma-separated task names")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "compression.json")
    arguments = parser.parse_args()
    only = {name for name in arguments.only.split(",") if name}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    results = []
    for task in sorted(arguments.corpus.glob("*.toml"), key=lambda path: path.with_suffix(".npz").stat().st_size):
        if only and task.stem not in only:
            continue
        results.append(compress(task, arguments.profile, arguments.max_drop, arguments.budget))
        sys.stdout.write(line(results[-1]) + "\n")
        sys.stdout.flush()
        arguments.out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 1 if any("error" in result for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
