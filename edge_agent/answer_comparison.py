"""Two answers to the same request, compared and counted: agreement, confusion, confidence, differences, time. Pure.

Used where a candidate runs in shadow and where captured requests are replayed. Comparing the arrays, which needs
arrays, is in `edge_agent.inference.answer_diff`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct, field

from edge_contracts.channel import Gates
from edge_contracts.shadow import MAX_CONFUSIONS, ShadowCounts, ShadowSummary

Z95 = 1.959964
"""Standard deviations of a 95 % interval."""

SHIFT_BINS = 20
DIFFERENCE_BINS = 80
LATENCY_BINS = 32
OTHER = "other"
"""Name under which pairs of classes beyond `MAX_CONFUSIONS` are counted together."""


class AnswerDifference(Struct, frozen=True, kw_only=True):
    """One request answered twice. Classes are names; None where the answer has none. `agrees` is about every place of
    the answer, the classes are those of a place that differs, if there is one. `largest` is the largest
    absolute difference of the numbers, NaN where only one side is finite or shapes differ."""

    agrees: bool | None
    before: str | None = None
    after: str | None = None
    shift: float | None = None
    largest: float = 0.0


class Comparison(Struct, kw_only=True):
    """Adds up differences."""

    compared: int = 0
    classified: int = 0
    agreed: int = 0
    failed: int = 0
    confusion: dict[str, int] = field(default_factory=dict)
    shifts: list[int] = field(default_factory=list)
    shift_sum: float = 0.0
    differences: list[int] = field(default_factory=list)
    before_us: int = 0
    after_us: int = 0
    latency_log2_us: list[int] = field(default_factory=lambda: [0] * LATENCY_BINS)

    def add(self, difference: AnswerDifference, before_us: int, after_us: int) -> None:
        """Count one request and how long both sides took, in microseconds."""
        self.compared += 1
        self.before_us += before_us
        self.after_us += after_us
        self.latency_log2_us[min((after_us or 1).bit_length(), LATENCY_BINS) - 1] += 1
        if difference.agrees is None:
            _count(self.differences, DIFFERENCE_BINS, difference_bin(difference.largest))
            return
        self.classified += 1
        self.agreed += difference.agrees
        if not difference.agrees:
            self._confuse(f"{difference.before}>{difference.after}")
        if difference.shift is not None and math.isfinite(difference.shift):
            self.shift_sum += difference.shift
            _count(self.shifts, SHIFT_BINS, min(int((difference.shift + 1.0) / 2.0 * SHIFT_BINS), SHIFT_BINS - 1))

    def _confuse(self, pair: str) -> None:
        known = pair in self.confusion or len(self.confusion) < MAX_CONFUSIONS
        name = pair if known else OTHER
        self.confusion[name] = self.confusion.get(name, 0) + 1

    def counts(self, version: str, manifest_sha256: str) -> ShadowCounts:
        """Return what was counted, as the contract writes it."""
        return ShadowCounts(
            version=version,
            manifest_sha256=manifest_sha256,
            compared=self.compared,
            classified=self.classified,
            agreed=self.agreed,
            failed=self.failed,
            confusion=dict(self.confusion),
            confidence_shift=tuple(self.shifts),
            confidence_shift_sum=self.shift_sum,
            differences=tuple(self.differences),
            served_us=self.before_us,
            candidate_us=self.after_us,
            latency_log2_us=tuple(self.latency_log2_us) if self.compared else (),
        )


def difference_bin(largest: float) -> int:
    """Return the bin of an absolute difference; one that is not finite is beyond all of them."""
    if not math.isfinite(largest):
        return DIFFERENCE_BINS - 1
    if largest <= 0.0:
        return 0
    return max(0, min(math.floor((math.log2(largest) + 20.0) * 2.0), DIFFERENCE_BINS - 1))


def difference_quantile(bins: Sequence[int], share: float) -> float | None:
    """Return the upper edge of the bin that holds the quantile: 0 for the first bin, infinity for the last. None
    without any counts."""
    total, seen = sum(bins), 0
    for index, count in enumerate(bins):
        seen += count
        if count and seen >= share * total:
            if index == 0:
                return 0.0
            return math.inf if index == DIFFERENCE_BINS - 1 else 2.0 ** ((index + 1) / 2.0 - 20.0)
    return None


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Return the score interval of a share (E. B. Wilson, JASA 22, 1927); (0, 1) without a trial."""
    if trials == 0:
        return 0.0, 1.0
    share, z2 = successes / trials, z * z
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = z / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    # The bounds are 0 and 1 exactly where every trial went one way; rounding must not say otherwise.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    return low, 1.0 if successes == trials else min(1.0, middle + half)


def plus(a: ShadowCounts, b: ShadowCounts) -> ShadowCounts:
    """Return the sum of two counts of one candidate; beyond `MAX_CONFUSIONS` pairs, the rest is counted together."""
    confusion: dict[str, int] = dict(a.confusion)
    for pair, count in b.confusion.items():
        name = pair if pair in confusion or len(confusion.keys() - {OTHER}) < MAX_CONFUSIONS else OTHER
        confusion[name] = confusion.get(name, 0) + count
    return msgspec.structs.replace(
        a,
        compared=a.compared + b.compared,
        classified=a.classified + b.classified,
        agreed=a.agreed + b.agreed,
        failed=a.failed + b.failed,
        deaths=a.deaths + b.deaths,
        confusion=confusion,
        confidence_shift=_sum(a.confidence_shift, b.confidence_shift),
        confidence_shift_sum=a.confidence_shift_sum + b.confidence_shift_sum,
        differences=_sum(a.differences, b.differences),
        served_us=a.served_us + b.served_us,
        candidate_us=a.candidate_us + b.candidate_us,
        latency_log2_us=_sum(a.latency_log2_us, b.latency_log2_us),
    )


def since(before: ShadowCounts | None, now: ShadowCounts) -> ShadowCounts:
    """Return what one process counted between two of its reports (None: since its start). Its counts only grow."""
    if before is None:
        return now
    confusion = {pair: count - before.confusion.get(pair, 0) for pair, count in now.confusion.items()}
    return msgspec.structs.replace(
        now,
        compared=now.compared - before.compared,
        classified=now.classified - before.classified,
        agreed=now.agreed - before.agreed,
        failed=now.failed - before.failed,
        confusion={pair: count for pair, count in confusion.items() if count},
        confidence_shift=_less(now.confidence_shift, before.confidence_shift),
        confidence_shift_sum=now.confidence_shift_sum - before.confidence_shift_sum,
        differences=_less(now.differences, before.differences),
        served_us=now.served_us - before.served_us,
        candidate_us=now.candidate_us - before.candidate_us,
        latency_log2_us=_less(now.latency_log2_us, before.latency_log2_us),
    )


def summary(counts: ShadowCounts) -> ShadowSummary:
    """Return what the counts say in a few numbers, rounded to what they can say."""
    low, high = wilson(counts.agreed, counts.classified)
    classified = counts.classified > 0
    median = difference_quantile(counts.differences, 0.5)
    return ShadowSummary(
        version=counts.version,
        compared=counts.compared,
        failed=counts.failed,
        deaths=counts.deaths,
        agreement=round(counts.agreed / counts.classified, 4) if classified else None,
        low=round(low, 4) if classified else None,
        high=round(high, 4) if classified else None,
        slower=round(counts.candidate_us / counts.served_us, 3) if counts.served_us else None,
        difference=median if median is None or math.isfinite(median) else None,
    )


def refusal(gates: Gates, counts: ShadowCounts) -> str | None:
    """Return why a candidate must not go live by what its shadow showed, None while nothing speaks against it.

    Disagreement counts once `shadow_requests` were compared and even the upper end of the agreement's interval lies
    below `min_agreement`; failing to answer what was answered counts against `max_error_share` in the same way. Its
    process may die as often as a soaking worker may crash.
    """
    if counts.deaths > gates.max_crashes:
        return "shadow-crash"
    asked = counts.compared + counts.failed
    if asked == 0 or asked < gates.shadow_requests:
        return None
    if wilson(counts.failed, asked)[0] > gates.max_error_share:
        return "shadow-errors"
    if counts.classified and wilson(counts.agreed, counts.classified)[1] < gates.min_agreement:
        return "shadow-disagreement"
    return None


def words(counts: ShadowCounts) -> str:
    """Return the counts as a line for people."""
    found = summary(counts)
    parts = [f"{found.compared} compared"]
    if found.agreement is not None and found.low is not None and found.high is not None:
        parts.append(f"{found.agreement:.1%} agree ({found.low:.1%} to {found.high:.1%})")
    if sum(counts.confidence_shift):
        parts.append(f"confidence {counts.confidence_shift_sum / sum(counts.confidence_shift):+.3f}")
    if any(counts.differences):
        quantiles = [difference_quantile(counts.differences, share) for share in (0.5, 0.9, 0.99)]
        parts.append("differences at most " + ", ".join(f"{value:.3g}" for value in quantiles if value is not None))
    if found.slower is not None:
        parts.append(f"takes {found.slower:.2f} times as long")
    for number, name in ((found.failed, "failed"), (found.deaths, "deaths")):
        if number:
            parts.append(f"{number} {name}")
    return ", ".join(parts)


def most_confused(confusion: Mapping[str, int], most: int) -> list[tuple[str, int]]:
    """Return the pairs of classes that are confused most, the most first."""
    return sorted(confusion.items(), key=lambda pair: (-pair[1], pair[0]))[:most]


def _count(bins: list[int], size: int, index: int) -> None:
    if not bins:
        bins.extend([0] * size)
    bins[index] += 1


def _sum(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    if not a or not b:
        return tuple(a or b)
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _less(now: Sequence[int], before: Sequence[int]) -> tuple[int, ...]:
    return tuple(now) if not before else tuple(x - y for x, y in zip(now, before, strict=True))
