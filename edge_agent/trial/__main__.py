"""The trial of a release on this very device, before it may serve. `python -m edge_agent.trial <TrialPlan JSON>`

`run_trial` (no numpy here) starts one throw-away child process per variant with limits on memory and wall time, so a
segfault, an allocation out of bounds or a hang of one variant is that variant's result and not the trial's end. What
the child does is in `edge_agent.trial.variant`. Whether the release goes on is decided by the update table.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from edge_agent.bundle import open_bundle
from edge_agent.host.memory_limits import LEAN_ENVIRONMENT
from edge_agent.ipc.trial import TrialPlan, TrialReport, VariantTrial
from edge_agent.run_clock import RunClock
from edge_contracts.codec import encode
from edge_contracts.limits import MAX_MESSAGE_BYTES

LOOK_S = 0.5
"""How often it is looked whether a variant's time is over, in seconds."""

MAX_LOG_BYTES = 16 * 1024
"""What is passed on of a failed variant's log: the end of it."""

EXIT_MEMORY = 70
"""A child whose allocation failed in the engine ends with this, after its report."""


def run_trial(plan: TrialPlan) -> TrialReport:
    """Try every variant in ladder order, each in its own process.

    Raises BundleError or ContractError if the bundle itself cannot be opened or a file is not the manifest's.
    """
    bundle = open_bundle(Path(plan.folder))
    return TrialReport(variants=tuple(_try_variant(plan, variant.id) for variant in bundle.manifest.variants))


def _try_variant(plan: TrialPlan, variant: str) -> VariantTrial:
    command = [sys.executable, "-m", "edge_agent.trial.variant", msgspec.json.encode(plan).decode(), variant]
    pipe, environment = subprocess.PIPE, os.environ | LEAN_ENVIRONMENT
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment) as process:
        done = wait_for(process, plan.time_s)
    if done is None:
        return VariantTrial(variant=variant, reason="time", text=f"timed out after {plan.time_s:g} s, killed")
    outcome = read_outcome(variant, done)
    if outcome.reason != "ok":  # what it said goes on into this process's own log
        sys.stderr.buffer.write(done.stderr[-MAX_LOG_BYTES:])
        sys.stderr.flush()
    return outcome


def wait_for(process: subprocess.Popen[bytes], limit_s: float) -> subprocess.CompletedProcess[bytes] | None:
    """Return what the process wrote once it has ended. When it takes longer than `limit_s`, in seconds during which
    this process ran, it is killed, and the result is None."""
    run = RunClock(time.monotonic())
    while True:
        try:
            output, errors = process.communicate(timeout=LOOK_S)
        except subprocess.TimeoutExpired:
            run.tick(time.monotonic())
            if run.now > limit_s and run.judging:
                process.kill()
                return None
            continue
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def read_outcome(variant: str, done: subprocess.CompletedProcess[bytes]) -> VariantTrial:
    """Return what an ended child reported on its last line, or, if it did not get that far, how it died."""
    last = done.stdout[-MAX_MESSAGE_BYTES:].splitlines()[-1:]
    try:
        return msgspec.json.decode(last[0], type=VariantTrial)
    except (IndexError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return VariantTrial(variant=variant, reason="crash", text=_death(done.returncode, done.stderr))


def _death(code: int, stderr: bytes) -> str:
    how = f"exit code {code}"
    if code < 0:
        how = f"killed by {signal.Signals(-code).name}"
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return f"{how}: {lines[-1][:300]}" if lines else how


def main(arguments: list[str]) -> int:
    """Run the trial of the plan given as the one argument; print its report. Exit code 0 if a variant passed."""
    report = run_trial(msgspec.json.decode(arguments[0], type=TrialPlan))
    sys.stdout.buffer.write(encode(report) + b"\n")
    return 0 if report.usable else 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
