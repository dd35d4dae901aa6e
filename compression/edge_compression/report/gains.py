"""What a search gained, in plain figures: which rungs are worth more than the original file, and by how much.

Pure; console, page and notebook say the same because they ask here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from edge_compression.evaluation.pareto import UNDECIDED, loses
from edge_compression.recipes.recipe import FLOAT_RECIPES
from edge_compression.report.model import CandidateReport, Report

LEAST_SAVED = 0.2
"""Share of the original's bytes that the float rung must save to be called a gain: less is names and metadata."""

NOTHING_GAINED = 4
"""Exit code of a search that found nothing worth more than the original; the bundle is written nevertheless."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A rung against the original file: sizes in bytes, latencies in milliseconds on this host."""

    one: CandidateReport
    size: int
    original_size: int
    latency_ms: float
    original_ms: float

    @property
    def bytes_ratio(self) -> float:
        return self.size / self.original_size

    @property
    def latency_ratio(self) -> float:
        return self.latency_ms / self.original_ms

    @property
    def words(self) -> str:
        """What it gains: `3.4 times smaller (98 kB to 29 kB), latency 0.95 times the original's (...)`."""
        smaller = f"{1.0 / self.bytes_ratio:.2g} times smaller ({sized(self.original_size)} to {sized(self.size)})"
        milliseconds = f"{self.original_ms:.3g} to {self.latency_ms:.3g} ms"
        return f"{smaller}, latency {self.latency_ratio:.2f} times the original's ({milliseconds})"


def rungs(report: Report) -> tuple[CandidateReport, ...]:
    """Return the rungs, the first one first."""
    by_id = {one.id: one for one in report.candidates}
    return tuple(by_id[name] for name in report.ladder)


def gain(one: CandidateReport, report: Report) -> Gain:
    """Return what a rung gains."""
    original = report.original.latency.p50
    return Gain(
        one=one,
        size=one.size,
        original_size=report.original_size,
        latency_ms=one.timing.latency.p50 if one.timing is not None else original,
        original_ms=original,
    )


def gained(report: Report) -> tuple[Gain, ...]:
    """Return the rungs that are worth more than the original: all but the float one, and that one where it saves
    bytes."""
    found = [gain(one, report) for one in rungs(report)]
    return tuple(
        one for one in found if one.one.id not in FLOAT_RECIPES or one.size < (1.0 - LEAST_SAVED) * one.original_size
    )


def why_nothing(report: Report) -> str:
    """Return why no rung is worth more than the original: what became of the recipes, and what came closest."""
    fates = ", ".join(fate_counts(report)) or "nothing else could be tried"
    near = closest(report)
    if near is not None and near.quality is not None:
        return f"{fates}; closest: {near.id}, {lost(near, report)}"
    reasons = Counter(one.reason for one in report.candidates if one.status != "kept" and one.reason)
    return f"{fates}; most often: {reasons.most_common(1)[0][0]}" if reasons else fates


def closest(report: Report) -> CandidateReport | None:
    """Return the smaller candidate that was left out for its loss and lost least, None where there is none."""
    over = [
        one
        for one in report.candidates
        if one.status == "left out"
        and one.quality is not None
        and one.quality.verdict != "within"
        and 0 < one.size < report.original_size
    ]
    return min(over, key=lambda one: one.quality.drop if one.quality else 0.0, default=None)


FATES = ("lose too much", "undecided", "gain too little", "failed", "the same as another", "not tried")


def fate_of(one: CandidateReport) -> str:
    """Return in a few words why a candidate is no rung."""
    if one.status == "left out" and one.quality is not None and (one.reason or "").startswith(UNDECIDED):
        return "undecided"
    if one.status == "left out" and one.quality is not None and one.quality.verdict != "within":
        return "lose too much"
    return {"failed": "failed", "duplicate": "the same as another", "not tried": "not tried"}.get(
        one.status, "gain too little"
    )


def fate_counts(report: Report) -> Iterator[str]:
    """Yield what became of those that are no rungs: `12 lose too much`."""
    counts = Counter(fate_of(one) for one in report.candidates if one.status != "kept")
    yield from (f"{counts[fate]} {fate}" for fate in FATES if counts[fate])


def lost(one: CandidateReport, report: Report) -> str:
    """Return a loss with its interval: `loses 0.20 points (95 %: -0.75 to 1.15 lost)`."""
    assert one.quality is not None
    interval = one.quality.drop_interval
    return f"{loses(one.quality.drop, report.unit)} (95 %: {interval.low:.2f} to {interval.high:.2f} lost)"


def score(value: float | None, unit: str) -> str:
    """Return a score with its unit, that of `JudgedReport.score_unit`: `90.8 %`, `12.3 dB`, `0.31 m`."""
    if value is None:
        return "-"
    return f"{100.0 * value:.1f} %" if unit == "%" else f"{value:.4g} {unit}".rstrip()


def sized(count: int) -> str:
    """Return a size as people say it, decimal: `740 B`, `29 kB`, `4.2 MB`."""
    if count < 1000:
        return f"{count} B"
    if count < 10_000:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e3:.0f} kB" if count < 1_000_000 else f"{count / 1e6:.3g} MB"
