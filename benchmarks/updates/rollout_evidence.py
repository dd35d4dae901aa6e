"""How soon a bad release is stopped and how often a good one is, by the plan and the evidence that a controller uses.

    python benchmarks/updates/rollout_evidence.py [--healthy 1000] [--bad 200] [--seed 1] [--out FILE]

Rollouts of 500 devices in four waves (5, 20, 50, 100 %) with ten gates on: outcomes, latency, and eight shares. Each
device of a wave gives its outcome, and one observation for each gate that compares, of skewed noise around what is
exactly allowed (the hardest healthy release there is) for half of the gates, around no change for the others. The
decisions are `edge_fleet.rollouts.plan_state` over `edge_fleet.evidence.gates`, looked at after every device. No
device, broker or clock takes part.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
from pathlib import Path
from typing import Any

import msgspec

from edge_fleet.evidence.gates import FAILURES, EvidenceBook, GateRule, Observation, gate_rules
from edge_fleet.rollouts.plan import RolloutPlan, WaveStep
from edge_fleet.rollouts.plan_state import StepProgress, StepState, decide_step

DEVICES = 500
WAVES = (5.0, 20.0, 50.0, 100.0)
COUNTERS = ("abstained", "errors", "lost", "rejected", "counter.a", "counter.b", "counter.c", "drift")


class Outcome(msgspec.Struct, frozen=True):
    """How one rollout ended: devices that took the release, those that failed, why it stopped (empty if it did not)."""

    devices: int
    failed: int
    stopped: str
    held: bool


def make_plan(allowed: float) -> RolloutPlan:
    """Return the four waves with ten gates on."""
    gates = {FAILURES: allowed, "latency": 1.1} | dict.fromkeys(COUNTERS, 0.02)
    steps = tuple(WaveStep(percent=percent) for percent in WAVES)
    return RolloutPlan(channel="c", model="m", version="1.0.0", steps=steps, gates=gates, inconclusive="continue")


def observe(rule: GateRule, index: int, chance: random.Random) -> float:
    """Return what one device shows at a gate that compares: skewed noise with the mean that is just allowed, or 0."""
    mean = rule.allowed if index % 2 else 0.0
    return mean + (chance.expovariate(1.0) - 1.0) * 0.1


def run(plan: RolloutPlan, rate: float, chance: random.Random) -> Outcome:
    """Run one rollout of a release of which a share of devices fail."""
    rules = gate_rules(plan.gates)
    book = EvidenceBook(rules, plan.alpha, plan.first_devices)
    passed = failed = 0
    held = False
    for step, percent in enumerate(WAVES):
        while passed + failed < DEVICES * percent / 100.0:
            bad = chance.random() < rate
            passed, failed = passed + (not bad), failed + bad
            book.add(Observation(gate=FAILURES, device="d", value=float(bad)))
            for index, rule in enumerate(rules):
                if rule.name != FAILURES:
                    book.add(Observation(gate=rule.name, device="d", value=observe(rule, index, chance)))
            busy = StepProgress(passed=passed, failed=failed, busy=1)
            decision = decide_step(plan, StepState(step=step, elapsed_s=0.0, progress=busy), book.verdict())
            if decision.action == "stop":
                return Outcome(passed + failed, failed, decision.why, held)
        through = StepState(step=step, elapsed_s=0.0, progress=StepProgress(passed=passed, failed=failed))
        held = (
            held
            or decide_step(msgspec.structs.replace(plan, inconclusive="hold"), through, book.verdict()).action == "stay"
        )
    return Outcome(passed + failed, failed, "", held)


def summary(rate: float, allowed: float, runs: int, seed: int) -> dict[str, Any]:
    """Return what came of many rollouts."""
    plan = make_plan(allowed)
    found = [run(plan, rate, random.Random(f"{seed}/{rate}/{allowed}/{number}")) for number in range(runs)]  # noqa: S311
    stopped = [one for one in found if one.stopped]
    return {
        "failing": rate,
        "allowed": allowed,
        "runs": runs,
        "stopped": len(stopped) / runs,
        "stopped_below": _upper(len(stopped), runs),
        "held": sum(one.held for one in found) / runs,
        "devices_median": statistics.median(one.devices for one in stopped) if stopped else None,
        "failed_median": statistics.median(one.failed for one in stopped) if stopped else None,
        "failed": sorted(one.failed for one in stopped),
    }


def _upper(hits: int, runs: int) -> float:
    """Return the upper end of the 95 % Wilson interval of a share."""
    z, share = 1.96, hits / runs
    middle = share + z * z / (2 * runs)
    return (middle + z * math.sqrt(share * (1 - share) / runs + z * z / (4 * runs * runs))) / (1 + z * z / runs)


def main() -> None:
    """Run all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--healthy", type=int, default=1000, help="Healthy rollouts for each limit.")
    parser.add_argument("--bad", type=int, default=200, help="Rollouts of each bad release for each limit.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="Results as JSON.")
    asked = parser.parse_args()
    rows = []
    print("failing  allowed  stopped (at most)  held   devices  failed (medians)")
    for allowed in (0.02, 0.05):
        for rate in (0.02, 0.1, 0.3):
            row = summary(rate, allowed, asked.healthy if rate == 0.02 else asked.bad, asked.seed)
            rows.append(row)
            shares = f"{row['stopped']:7.1%} ({row['stopped_below']:6.1%})  {row['held']:5.1%}"
            medians = f"{row['devices_median'] or '-':>7}  {row['failed_median'] or '-':>6}"
            print(f"{rate:7.0%}  {allowed:7.0%}  {shares}  {medians}")
            sys.stdout.flush()
    if asked.out is not None:
        asked.out.write_text(
            json.dumps({"devices": DEVICES, "waves": WAVES, "seed": asked.seed, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
