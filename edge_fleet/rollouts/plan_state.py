"""How a planned rollout goes on: a pure decision from the plan, the step it is in, what devices report and the verdict.

Nothing acts here. Signing and storing are in `edge_fleet.controller.rollout_driver`; that decisions depend on their
arguments alone is what lets `edgewright fleet rollout replay` make them again.
"""

from __future__ import annotations

import math
from typing import Literal

from edge_contracts.codec import Record
from edge_fleet.evidence.gates import FAILURES, GateResult, Verdict
from edge_fleet.rollouts.plan import ApprovalStep, HoldStep, RolloutPlan, ShadowStep, WaveStep

Action = Literal["stay", "next", "finish", "stop"]


class StepProgress(Record, frozen=True, kw_only=True):
    """The devices of a wave: `passed` have committed (in a shadow: compared enough), `failed` rejected it, rolled it
    back or fell silent, `busy` are at it or being observed, `waiting` are online and have not begun, `offline` are
    not there. Only the first four can hold a wave up."""

    passed: int = 0
    failed: int = 0
    busy: int = 0
    waiting: int = 0
    offline: int = 0

    @property
    def settled(self) -> int:
        """Devices of which the end is known."""
        return self.passed + self.failed


class StepState(Record, frozen=True, kw_only=True):
    """Where a rollout is: `step` counts from 0, entered `elapsed_s` seconds ago; `approved` is who said yes to it."""

    step: int
    elapsed_s: float
    paused: bool = False
    approved: str | None = None
    progress: StepProgress = StepProgress()


class StepDecision(Record, frozen=True, kw_only=True):
    """What to do now, and why, as a sentence."""

    action: Action
    why: str


def decide_step(plan: RolloutPlan, state: StepState, verdict: Verdict) -> StepDecision:
    """Return what happens to the rollout now. Enough evidence stops it in any step, also while it is paused."""
    if verdict.stops:
        return StepDecision(action="stop", why=stop_sentence(verdict))
    if state.paused:
        return StepDecision(action="stay", why="is paused: edgewright fleet rollout resume")
    holds = _reason_to_stay(plan, state, verdict)
    if holds is not None:
        return StepDecision(action="stay", why=holds)
    last = state.step + 1 == len(plan.steps)
    return StepDecision(action="finish" if last else "next", why=_through(plan, state))


def _reason_to_stay(plan: RolloutPlan, state: StepState, verdict: Verdict) -> str | None:
    step = plan.steps[state.step]
    if isinstance(step, HoldStep):
        left = step.seconds - state.elapsed_s
        return f"holds for {duration(left)} more" if left > 0 else None
    if isinstance(step, ApprovalStep):
        by = step.who or "anybody"
        wanted = state.approved is None or (step.who is not None and state.approved != step.who)
        return f"waits for the approval of {by}: edgewright fleet rollout approve" if wanted else None
    return _wave_stays(plan, step, state, verdict)


def _wave_stays(plan: RolloutPlan, step: WaveStep | ShadowStep, state: StepState, verdict: Verdict) -> str | None:
    progress = state.progress
    waiting = progress.waiting if state.elapsed_s < step.deadline_s else 0
    if progress.busy or waiting:
        whole = progress.settled + progress.busy + waiting
        return (
            f"{progress.settled} of {whole} devices have settled ({progress.failed} failed); {progress.busy} are at "
            f"work, {waiting} have not begun"
        )
    if progress.passed < step.at_least:
        there = f", {progress.offline} of the wave are offline" if progress.offline else ""
        return f"{progress.passed} devices have come through, {step.at_least} must{there}"
    if plan.inconclusive == "hold":
        return _undecided(verdict.gates.get(FAILURES))
    return None


def _undecided(failures: GateResult | None) -> str | None:
    """A share of failures above the limit that is not enough evidence holds the rollout until reports bring it down, or
    a person decides."""
    if failures is None or failures.mean is None or failures.mean <= failures.allowed:
        return None
    failed = round(failures.mean * failures.count)
    more = math.ceil(failed / failures.allowed) - failures.count if failures.allowed else None
    ending = "no further report changes that" if more is None else f"{more} more that succeed decide"
    return f"holds: {failed} of {failures.count} devices failed, allowed {failures.allowed:.3g} of all: {ending}"


def _through(plan: RolloutPlan, state: StepState) -> str:
    step = plan.steps[state.step]
    if isinstance(step, HoldStep):
        return f"has held for {duration(step.seconds)}"
    if isinstance(step, ApprovalStep):
        return f"was approved by {state.approved}"
    kind = "wave" if isinstance(step, WaveStep) else "shadow"
    progress = state.progress
    away = f", {progress.offline} offline" if progress.offline else ""
    return f"{kind} {state.step + 1} is through: {progress.passed} devices passed, {progress.failed} failed{away}"


def stop_sentence(verdict: Verdict) -> str:
    """Return why a rollout has to stop: each violated gate with what was seen and what is allowed."""
    if verdict.broken and not verdict.violated:
        return "the first devices failed, all of them"
    return "; ".join(_violation(name, verdict.gates[name]) for name in verdict.violated)


def _violation(name: str, result: GateResult) -> str:
    mean = 0.0 if result.mean is None else result.mean
    seen = f"{result.count} devices, evidence {odds(result.log_e)}"
    if name == FAILURES:
        return f"{round(mean * result.count)} of {result.count} devices failed, allowed {result.allowed:.3g} of all"
    if name == "latency":
        return f"latency {2**mean:.2f} times the other devices', allowed {2**result.allowed:.2f} ({seen})"
    return f"{name} {mean:+.3f} against the other devices, allowed {result.allowed:+.3f} ({seen})"


def odds(log_e: float) -> str:
    """Return evidence for people."""
    return f"{math.exp(min(log_e, 30.0)):.3g} to 1"


def duration(seconds: float) -> str:
    """Return a length of time for people, in one unit."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{max(seconds, 0.0):.0f} s"
