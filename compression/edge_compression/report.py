"""What a compression run says: the records of `report.json` and of `--json`, and the table on the console.

Everything tried is in it, with the reason why it is or is not on the ladder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_bench.environment import Environment
from edge_bench.measure import Measurement
from edge_bench.stats import LatencySummary
from edge_bench.task import Task
from edge_compression.candidate import Candidate, Status
from edge_compression.contract import Changes
from edge_compression.evaluate import Exactness, Quality
from edge_compression.search import Found
from edge_contracts.codec import StrictRecord

if TYPE_CHECKING:
    from rich.table import Table

REPORT_SCHEMA = 1
GOOD_DROP = 1.0
"""Points an 8-bit variant may lose and still be called good in the report."""


class Timing(StrictRecord, frozen=True, kw_only=True):
    """What a model cost on this host: milliseconds, and the peak memory it added to a process, in megabytes."""

    latency: LatencySummary
    load_ms: float
    first_ms: float
    peak_memory_mb: float


class CandidateReport(StrictRecord, frozen=True, kw_only=True):
    """One recipe: what it is in words, what its passes did, how good and how costly its result is, and its fate."""

    id: str
    summary: str
    status: Status
    reason: str | None
    changes: tuple[Changes, ...]
    build_s: float
    size: int
    sha256: str
    quality: Quality | None
    exactness: Exactness | None
    timing: Timing | None


class EightBit(StrictRecord, frozen=True, kw_only=True):
    """The verdict on 8-bit variants: the best one (the smallest good one, else the one that loses least), whether
    it is good, and which fell short with how many points."""

    best: str | None
    drop: float | None
    good: bool
    in_ladder: bool
    fell_short: dict[str, float]
    statement: str


class Report(StrictRecord, frozen=True, kw_only=True):
    """One compression run. Sizes in bytes, drops in points."""

    schema: int = REPORT_SCHEMA
    name: str
    version: str
    command: str
    profile: str
    metric: str
    max_drop: float
    evaluation_samples: int
    calibration_samples: int
    calibration_overlap: int
    original_score: float
    original_size: int
    original: Timing
    ladder: tuple[str, ...]
    eight_bit: EightBit
    notes: tuple[str, ...]
    candidates: tuple[CandidateReport, ...]
    environment: Environment


def timing(measured: Measurement) -> Timing:
    """Return the record of a measurement."""
    return Timing(
        latency=measured.latency,
        load_ms=measured.loaded.load_ms,
        first_ms=measured.loaded.first_ms,
        peak_memory_mb=measured.loaded.peak_memory_mb,
    )


def candidate_report(one: Candidate) -> CandidateReport:
    """Return the record of a candidate."""
    return CandidateReport(
        id=one.id,
        summary=one.recipe.summary,
        status=one.status,
        reason=one.reason,
        changes=one.changes,
        build_s=one.build_s,
        size=one.size,
        sha256=one.sha256,
        quality=one.quality,
        exactness=one.exactness,
        timing=timing(one.measured) if one.measured is not None else None,
    )


def eight_bit(found: Found) -> EightBit:
    """Judge the 8-bit variants."""
    drops = {one.id: one.quality.drop for one in found.candidates if one.recipe.eight_bit and one.quality is not None}
    short = {name: drop for name, drop in drops.items() if drop > GOOD_DROP}
    on_ladder = {name: drop for name, drop in drops.items() if name in found.ladder.rungs}
    sizes = {one.id: one.size for one in found.candidates}
    good = {name: drop for name, drop in on_ladder.items() if drop <= GOOD_DROP}
    pool = good or on_ladder or drops
    best = min(pool, key=lambda name: sizes[name] if good else pool[name], default=None)
    if best is None:
        statement = "no 8-bit variant could be made; the float original is kept"
    elif not on_ladder:
        statement = f"no 8-bit variant is on the ladder; {best} came closest with {pool[best]:.2f} points lost"
    else:
        statement = f"{best} loses {pool[best]:.2f} points"
    return EightBit(
        best=best,
        drop=None if best is None else pool[best],
        good=best is not None and pool[best] <= GOOD_DROP,
        in_ladder=bool(on_ladder),
        fell_short=short,
        statement=statement,
    )


def notes(task: Task, found: Found) -> tuple[str, ...]:
    """Return what a reader must know before believing the numbers."""
    said = []
    if task.overlap:
        said.append(
            f"{task.overlap} of {task.calibration.shape[0]} calibration samples are evaluation samples too: "
            "quality may be flattered"
        )
    kept = [one for one in found.candidates if one.status == "kept"]
    for one in kept:
        assert one.quality is not None
        assert one.measured is not None
        if one.quality.undecided:
            interval = one.quality.drop_interval
            said.append(
                f"{one.id}: {found.x.shape[0]} samples cannot decide the drop limit "
                f"(95 % interval {interval.low:.2f} to {interval.high:.2f} points)"
            )
        if one.measured.latency.p50 > found.timing.latency.p50 * 1.05:
            ratio = one.measured.latency.p50 / found.timing.latency.p50
            said.append(f"{one.id} takes {ratio:.2f} times the original's latency on this CPU")
    said += [
        f"{one.id}: {one.exactness.hazard}"
        for one in found.candidates
        if one.exactness is not None and one.exactness.hazard is not None
    ]
    return tuple(said)


def table(report: Report) -> Table:
    """Return the console's table: the original, then everything tried, rungs first."""
    from rich.table import Table

    columns = ("variant", "drop", "95 % interval", "agree", "exact", "ms", "x", "kB", "MB", "")
    drawn = Table(*columns, title=f"{report.name} {report.version} for {report.profile}")
    base = report.original
    drawn.add_row(
        "original", f"{report.original_score:.4f}", "", "", "", f"{base.latency.p50:.3f}", "1.00",
        f"{report.original_size / 1e3:.0f}", f"{base.peak_memory_mb:.1f}", "",
    )  # fmt: skip
    place = {name: index for index, name in enumerate(report.ladder)}
    for one in sorted(report.candidates, key=lambda one: place.get(one.id, len(place))):
        drawn.add_row(*_row(one, base.latency.p50, place.get(one.id)), style="" if one.id in place else "dim")
    return drawn


def _row(one: CandidateReport, original_ms: float, place: int | None) -> list[str]:
    quality, exact, cost = one.quality, one.exactness, one.timing
    return [
        one.id,
        f"{quality.drop:.2f}" if quality else "",
        f"{quality.drop_interval.low:.2f} to {quality.drop_interval.high:.2f}" if quality else "",
        f"{quality.agreement:.1%}" if quality and quality.agreement is not None else "",
        f"{exact.score_exact:.4f}" + (" !" if exact.hazard else "") if exact else "",
        f"{cost.latency.p50:.3f}" if cost else "",
        f"{cost.latency.p50 / original_ms:.2f}" if cost else "",
        f"{one.size / 1e3:.0f}" if one.size else "",
        f"{cost.peak_memory_mb:.1f}" if cost else "",
        f"rung {place + 1}" if place is not None else f"{one.status}: {one.reason}",
    ]
