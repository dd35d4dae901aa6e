"""Whether measurements stay within limits: of a budget, and against an earlier measurement. Pure: records in, a verdict
out.

Each check passes, fails, or is unsure where the interval of what was measured lies on both sides of the limit: then
nothing is shown either way, and measuring for longer tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from edge_bench.compare import LatencyComparison, compare_reports
from edge_bench.report import BenchReport, SubjectReport
from edge_contracts.codec import StrictRecord
from edge_contracts.errors import OperatorError
from edge_contracts.profile import ModelBudget

Verdict = Literal["pass", "unsure", "fail"]
_RANK: Mapping[Verdict, int] = {"pass": 0, "unsure": 1, "fail": 2}

POINTS = ("points", "fidelity")
"""Units of metrics whose losses are counted in hundredths of the metric; of others, in percent of the earlier score."""


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What may be lost against an earlier measurement: latency and memory in percent; quality in points, for metrics
    that have no points in percent of the earlier score."""

    slower: float = 5.0
    growth: float = 10.0
    drop: float = 1.0


class LimitCheck(StrictRecord, frozen=True, kw_only=True):
    """One limit of one subject. `value` and its interval are in `unit`, as `limit`; the interval is None where the
    value is exact. `why` says what else is to be known."""

    subject: str
    what: str
    verdict: Verdict
    value: float
    limit: float
    unit: str
    low: float | None = None
    high: float | None = None
    why: str = ""


class BenchGate(StrictRecord, frozen=True, kw_only=True):
    """What a gate says: the worst of its checks."""

    schema: int = 1
    verdict: Verdict
    checks: tuple[LimitCheck, ...]


def result(checks: Iterable[LimitCheck]) -> BenchGate:
    """Return the checks with the verdict that follows. Raises OperatorError when nothing was checked: a gate that
    looks at nothing must not pass."""
    found = tuple(checks)
    if not found:
        raise OperatorError("nothing to check", hint="give --budget, --baseline or --against")
    return BenchGate(verdict=max((one.verdict for one in found), key=_RANK.__getitem__), checks=found)


def against_budget(subject: SubjectReport, budget: ModelBudget) -> list[LimitCheck]:
    """Check one measured subject against what a model may cost on a class of devices."""
    if subject.error is not None or subject.latency is None:
        return [_broken(subject)]
    name, checks = subject.name, []
    if budget.latency_ms is not None:
        spread = subject.latency.p50_interval
        checks.append(
            _checked(name, "latency p50", (subject.latency.p50, spread.low, spread.high), budget.latency_ms, "ms")
        )
    checks.append(_exact(name, "file", subject.size / 1e6, budget.disk_mb, "MB"))
    if subject.peak_memory_mb is not None:
        checks.append(_exact(name, "peak memory", subject.peak_memory_mb, budget.memory_mb, "MB"))
    if subject.load_ms is not None:
        checks.append(_exact(name, "load", subject.load_ms / 1e3, budget.load_s, "s"))
    return checks


def against_baseline(new: BenchReport, old: BenchReport, allowed: Allowed, seed: int = 0) -> list[LimitCheck]:
    """Check a report against an earlier one, subject by subject. Raises OperatorError when no subject is in both."""
    pairs = _pairs(new, old)
    apart = _apart(new, old)
    checks = []
    for before, after in pairs:
        if after.error is not None:
            checks.append(_broken(after))
            continue
        ratio = compare_reports((before.name, after.name), (before, after), seed)
        checks.append(latency_check(after.name, ratio, allowed, apart))
        checks += costs(before, after, allowed)
    return checks


def latency_check(name: str, ratio: LatencyComparison, allowed: Allowed, apart: str = "") -> LimitCheck:
    """Check how much slower a subject became; `apart` says why the two measurements cannot be compared, if so."""
    percent = tuple(100.0 * (value - 1.0) for value in (ratio.ratio, ratio.low, ratio.high))
    found = _checked(name, "slower", (percent[0], percent[1], percent[2]), allowed.slower, "%")
    if not apart:
        return found
    return LimitCheck(
        subject=name, what="slower", verdict="unsure", value=found.value, limit=found.limit, unit="%", low=found.low,
        high=found.high, why=apart,
    )  # fmt: skip


def costs(before: SubjectReport, after: SubjectReport, allowed: Allowed) -> list[LimitCheck]:
    """Check what is not latency: growth of memory, loss of quality."""
    checks = []
    if before.peak_memory_mb and after.peak_memory_mb:
        growth = 100.0 * (after.peak_memory_mb / before.peak_memory_mb - 1.0)
        checks.append(_exact(after.name, "memory growth", growth, allowed.growth, "%"))
    old, new = before.quality, after.quality
    if old is not None and new is not None and old.metric == new.metric:
        lost = old.better * (old.score - new.score)
        in_points = old.unit in POINTS
        drop = 100.0 * lost / (1.0 if in_points else max(abs(old.score), 1e-12))
        checks.append(_exact(after.name, f"{old.metric} lost", drop, allowed.drop, "points" if in_points else "%"))
    return checks


def sentence(one: LimitCheck) -> str:
    """Return a check for people: `int8: latency p50 3.21 ms (3.19 to 3.24), limit 5 ms: pass`."""
    spread = "" if one.low is None or one.high is None else f" ({one.low:.3g} to {one.high:.3g})"
    why = f"; {one.why}" if one.why else ""
    return f"{one.verdict}: {one.subject}: {one.what} {one.value:.3g} {one.unit}{spread}, limit {one.limit:g}{why}"


def _pairs(new: BenchReport, old: BenchReport) -> list[tuple[SubjectReport, SubjectReport]]:
    """Return what was measured then and now, by name; one model alone is the other whatever its name."""
    before = {one.name: one for one in old.subjects if one.error is None}
    if len(before) == 1 and len(new.subjects) == 1:
        return [(next(iter(before.values())), new.subjects[0])]
    pairs = [(before[one.name], one) for one in new.subjects if one.name in before]
    if not pairs:
        known = ", ".join(before) or "none"
        raise OperatorError("the baseline has no subject of these names", subject="--baseline", hint=f"it has: {known}")
    return pairs


def _apart(new: BenchReport, old: BenchReport) -> str:
    """Say why latencies of two reports cannot be compared; empty when they can."""
    if new.environment.cpu != old.environment.cpu:
        return f"measured on another machine ({old.environment.cpu}); --against measures both here"
    if new.threads != old.threads:
        return f"measured with {old.threads} threads then, {new.threads} now"
    if new.inputs != old.inputs:
        return f"fed with {old.inputs} then, {new.inputs} now"
    return ""


def _broken(subject: SubjectReport) -> LimitCheck:
    why = subject.error or "no latency"
    return LimitCheck(subject=subject.name, what="runs", verdict="fail", value=0.0, limit=1.0, unit="", why=why)


def _exact(name: str, what: str, value: float, limit: float, unit: str) -> LimitCheck:
    verdict: Verdict = "pass" if value <= limit else "fail"
    return LimitCheck(subject=name, what=what, verdict=verdict, value=value, limit=limit, unit=unit)


def _checked(name: str, what: str, measured: tuple[float, float, float], limit: float, unit: str) -> LimitCheck:
    value, low, high = measured
    verdict: Verdict = "fail" if low > limit else ("pass" if high <= limit else "unsure")
    why = "" if verdict != "unsure" else "the interval lies on both sides of the limit: measure for longer"
    return LimitCheck(
        subject=name, what=what, verdict=verdict, value=value, limit=limit, unit=unit, low=low, high=high, why=why
    )
