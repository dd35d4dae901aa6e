"""Fuzzes every target for a while and writes what came of it: `make fuzz`.

    python tests/campaigns/fuzzing/campaign.py --seconds 600 --out benchmarks/results/fuzzing.json
        [--only TARGET]... [--corpus DIR]

Each target runs in processes of its own, one after the other (`fuzz_worker`); one that died is started again for the
time that is left, with what it had learnt. Inputs that went wrong stay in `--findings`; put right, they belong into
`tests/campaigns/fuzzing/regressions/<surface>/`. Exit code 1 if there were any.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # tests/, for `campaigns` and `support`

from campaigns.fuzzing.surfaces import TARGETS

ROOT = Path(__file__).parents[3]
SURPLUS_S = 90.0
"""What a process may take beyond its time, to start and for its last input."""

MAX_DEATHS = 20
"""Processes of one target that may die before it is left alone."""


@dataclass(kw_only=True)
class Outcome:
    """What came of one target: how many examples, attacks and regression cases held (`known`), what was fuzzed, and the
    branches of Python code that it reached (`edges`)."""

    target: str
    known: int = 0
    executions: int = 0
    seconds: float = 0.0
    edges: int = 0
    deaths: int = 0
    findings: list[dict[str, Any]] = field(default_factory=list)


def memory_folder() -> str | None:
    """Return a folder in memory for what targets write, None where the system has none."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def fuzz(target: str, seconds: int, findings: Path, corpus: Path, seed: int = 1) -> Outcome:
    """Fuzz one target for `seconds`; for none, only what is known is run."""
    outcome, begun = Outcome(target=target), time.monotonic()
    while (left := max(0, round(seconds - outcome.seconds))) or not outcome.known + outcome.deaths:
        words = ["--seconds", str(left), "--corpus", str(corpus), "--seed", str(seed + outcome.deaths)]
        code, log = _worker([target, *words], findings, left + SURPLUS_S)
        outcome.known = _number(r"stat::number_of_known_units: (\d+)", log)
        outcome.executions += _number(r"stat::number_of_executed_units: (\d+)", log)
        outcome.edges = max(outcome.edges, _number(r"cov: (\d+)", log))
        outcome.seconds = round(time.monotonic() - begun, 1)
        if code == 0:
            break
        outcome.deaths += 1
        if outcome.deaths >= MAX_DEATHS:
            break
        outcome.findings.append({"surface": target, "error": f"exit code {code}", "text": log[-1500:]})
    outcome.findings += found(findings)
    return outcome


def found(findings: Path) -> list[dict[str, Any]]:
    """Return the findings noted in a folder."""
    log = findings / "found.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _worker(words: list[str], findings: Path, limit_s: float) -> tuple[int, str]:
    """Run a worker to its end; return its exit code and what it said."""
    findings.mkdir(parents=True, exist_ok=True)
    script = str(Path(__file__).with_name("worker.py"))
    with tempfile.TemporaryDirectory(dir=memory_folder()) as scratch:
        command = [sys.executable, script, *words, "--findings", str(findings), "--scratch", scratch]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        try:
            done = subprocess.run(command, capture_output=True, timeout=limit_s, check=False, env=environment)
        except subprocess.TimeoutExpired:
            return -9, "over its time, killed"
        return done.returncode, done.stderr.decode("utf-8", "replace")


def _number(pattern: str, log: str) -> int:
    return max((int(number) for number in re.findall(pattern, log)), default=0)


def _write(out: Path, outcome: Outcome) -> None:
    """Put an outcome in the place of the last one of its target."""
    kept: list[dict[str, Any]] = json.loads(out.read_text())["targets"] if out.exists() else []
    mine = asdict(outcome) | {"made": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    targets = {entry["target"]: entry for entry in [*kept, mine]}
    report = {
        "command": "make fuzz",
        "python": platform.python_version(),
        "machine": platform.machine(),
        "targets": [targets[name] for name in TARGETS if name in targets],
    }
    out.write_text(json.dumps(report, indent=1) + "\n")


def main() -> int:
    """Run the campaign; the report is written after each target, which keeps what it says of others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--only", action="append", choices=TARGETS, help="this target; may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="the report, JSON")
    parser.add_argument("--findings", type=Path, default=ROOT / ".fuzzing" / "findings")
    parser.add_argument("--corpus", type=Path, default=ROOT / ".fuzzing" / "corpus")
    options = parser.parse_args()
    clean = True
    for target in options.only or TARGETS:
        findings = options.findings / f"{target}-{int(time.time())}"
        outcome = fuzz(target, options.seconds, findings, options.corpus / target)
        clean = clean and not outcome.findings
        _write(options.out, outcome)
        print(
            f"{target}: {outcome.executions} inputs in {outcome.seconds:.0f} s, {outcome.edges} edges, "
            f"{len(outcome.findings)} findings",
            flush=True,
        )
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
