"""The gates of a rollout: what each of them observes of a device, and the verdict over all of them.

One device is one observation, never one request: requests of one device share its camera, its heat and its network.
`failures` observes outcomes. The others compare a device that runs the candidate with devices that do not, over the
same time; each of those is compared once only, so that observations stay independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from edge_contracts.codec import Record, StrictRecord
from edge_contracts.errors import ContractError
from edge_contracts.names import Name
from edge_contracts.telemetry import TelemetryWindow
from edge_fleet.evidence.e_process import OUTCOME, Bounds, EProcess
from edge_fleet.evidence.joint import discoveries

FAILURES = "failures"
LATENCY = "latency"
DISAGREEMENT = "disagreement"
DRIFT = "drift"
COUNTER = "counter."
SHARES = ("errors", "abstained", "lost", "rejected")
"""Counters of a window that a gate may name without the prefix: shares of the requests."""

MIN_REQUESTS = 20
"""Fewer requests of a device say nothing about it."""

_DIFFERENCE = Bounds(low=-1.0, high=1.0)


class GateRule(StrictRecord, frozen=True, kw_only=True):
    """A gate ready to judge: `allowed` in the unit of its observations, which lie in `bounds`."""

    name: str
    allowed: float
    bounds: Bounds = OUTCOME

    @property
    def compares(self) -> bool:
        """Whether an observation needs devices that do not run the candidate."""
        return self.name not in (FAILURES, DISAGREEMENT)


class Observation(Record, frozen=True, kw_only=True):
    """One device's evidence at one gate. `text` says what was seen, for people."""

    gate: str
    device: Name
    value: float
    text: str = ""


class GateResult(Record, frozen=True, kw_only=True):
    """Where a gate stands: the mean of `count` devices against what is allowed, and the logarithm of the evidence."""

    count: int
    mean: float | None
    allowed: float
    log_e: float
    violated: bool


class Verdict(Record, frozen=True, kw_only=True):
    """All gates together. `broken` means that each of the first devices failed."""

    gates: dict[str, GateResult]
    broken: bool = False

    @property
    def violated(self) -> tuple[str, ...]:
        """The gates for whose violation there is enough evidence, by name."""
        return tuple(sorted(name for name, result in self.gates.items() if result.violated))

    @property
    def stops(self) -> bool:
        """Whether the rollout has to stop."""
        return self.broken or bool(self.violated)


class EvidenceBook:
    """Adds observations up, in the order in which they were stored, and judges at any time."""

    def __init__(self, rules: Iterable[GateRule], alpha: float, first: int) -> None:
        """Start without evidence. `alpha` is the probability of stopping a rollout that keeps all its gates; `first`
        is how many devices must fail right at the start, all of them, to stop at once (0: no such rule)."""
        self._alpha = alpha
        self._first = first
        self._rules = {rule.name: rule for rule in rules}
        self._processes = {name: EProcess(rule.allowed, rule.bounds) for name, rule in self._rules.items()}
        self._opening: list[float] = []

    def add(self, observation: Observation) -> None:
        """Take an observation in; one of a gate that is not judged here is ignored."""
        process = self._processes.get(observation.gate)
        if process is None:
            return
        process.add(observation.value)
        if observation.gate == FAILURES and len(self._opening) < self._first:
            self._opening.append(observation.value)

    def verdict(self) -> Verdict:
        """Return where all gates stand now."""
        found = discoveries({name: process.log_e for name, process in self._processes.items()}, self._alpha)
        results = {
            name: GateResult(
                count=process.count,
                mean=process.mean,
                allowed=self._rules[name].allowed,
                log_e=process.log_e,
                violated=name in found,
            )
            for name, process in self._processes.items()
        }
        broken = 0 < self._first == len(self._opening) and all(self._opening)
        return Verdict(gates=results, broken=broken)


def gate_rules(allowed: Mapping[str, float]) -> tuple[GateRule, ...]:
    """Return the rules of a plan's gates. Raises ContractError naming a gate that is none or a limit it cannot have."""
    return tuple(_rule(name, limit) for name, limit in sorted(allowed.items()))


def _rule(name: str, limit: float) -> GateRule:
    subject = f"gates.{name}"
    if name == LATENCY:
        if not 1.0 <= limit < 2.0:
            raise ContractError("times the other devices' latency: at least 1, below 2", subject=subject)
        return GateRule(name=name, allowed=math.log2(limit), bounds=_DIFFERENCE)
    if name not in (FAILURES, DISAGREEMENT, DRIFT, *SHARES) and not name.startswith(COUNTER):
        known = ", ".join((FAILURES, LATENCY, DISAGREEMENT, DRIFT, *SHARES, "counter.NAME"))
        raise ContractError(f"no gate of that name; known are {known}", subject=subject)
    if not 0.0 <= limit < 1.0:
        raise ContractError("a share: at least 0, below 1", subject=subject)
    alone = name in (FAILURES, DISAGREEMENT)
    return GateRule(name=name, allowed=limit, bounds=OUTCOME if alone else _DIFFERENCE)


def measure(gate: str, windows: Iterable[TelemetryWindow]) -> float | None:
    """Return what a gate compares of one device's windows: the mean binary logarithm of the latency in µs, or a share
    of the requests (for drift, of the windows). None if they hold too little to say."""
    seen = list(windows)
    if gate == DRIFT:
        judged = [window for window in seen if window.drift]
        return sum(any(value > 1.0 for value in w.drift.values()) for w in judged) / len(judged) if judged else None
    if gate == LATENCY:
        return _mean_log_latency(seen)
    if gate == DISAGREEMENT:
        return _disagreement(seen)
    requests = sum(window.counters.get("requests", 0) for window in seen)
    if requests < MIN_REQUESTS:
        return None
    name = gate.removeprefix(COUNTER)
    return sum(window.counters.get(name, 0) for window in seen) / requests


def _mean_log_latency(windows: list[TelemetryWindow]) -> float | None:
    count, total = 0, 0.0
    for window in windows:
        for power, number in enumerate(window.latency_log2_us):
            count += number
            total += number * (power + 0.5)
    return total / count if count >= MIN_REQUESTS else None


def _disagreement(windows: list[TelemetryWindow]) -> float | None:
    shadows = [window.shadow for window in windows if window.shadow is not None]
    classified = sum(shadow.classified for shadow in shadows)
    return 1.0 - sum(shadow.agreed for shadow in shadows) / classified if classified >= MIN_REQUESTS else None
