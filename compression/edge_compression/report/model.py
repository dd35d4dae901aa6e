"""What a compression run says: the records of `report.json` and of `--json`.

Everything tried is in it, with the reason why it is or is not on the ladder. What a reader must know before believing
the numbers is worded in `notes`; the forms for people are in `report_text` and `report_html`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from edge_bench.environment import Environment
from edge_bench.judged import JudgedAnswer
from edge_bench.measure import Measurement
from edge_bench.metrics.registry import METRICS
from edge_bench.stats import LatencySummary
from edge_bench.task import Task
from edge_compression.evaluation.candidate import Candidate, Status
from edge_compression.evaluation.layer_errors import LayerError
from edge_compression.evaluation.limits import OutputLimit
from edge_compression.evaluation.quality import Exactness, Quality
from edge_compression.options import Options
from edge_compression.pass_api import Changes
from edge_compression.report.caveats import EightBit, eight_bit, fastest, notes
from edge_compression.search.finalists import SearchResult
from edge_contracts.codec import StrictRecord
from edge_contracts.profile import DeviceProfile

REPORT_SCHEMA = 2

METRIC_SHARES = frozenset(name for name, one in METRICS.items() if one.unit == "points")
"""Metrics between 0 and 1, which people read in percent."""


class Timing(StrictRecord, frozen=True, kw_only=True):
    """What a model cost on this host: milliseconds, and the peak memory it added to a process, in megabytes."""

    latency: LatencySummary
    load_ms: float
    first_ms: float
    peak_memory_mb: float


class CandidateReport(StrictRecord, frozen=True, kw_only=True):
    """One candidate: what it is in words and as a recipe, what its passes did, how good and how costly its result is,
    and its fate. `pace` is its latency relative to the original's, measured while others were built;
    `timing` was measured alone, of the best. `choosing` is the quality it was chosen by,
    where samples were kept back, and
    `confirmation` that on those. `layers` is there for rungs."""

    id: str
    summary: str
    recipe: str
    status: Status
    reason: str | None
    taken_over: bool
    changes: tuple[Changes, ...]
    build_s: float
    build_memory_mb: float
    size: int
    sha256: str
    quality: Quality | None
    choosing: Quality | None
    confirmation: Quality | None
    exactness: Exactness | None
    pace: float | None
    timing: Timing | None
    layers: tuple[LayerError, ...]


class JudgedReport(StrictRecord, frozen=True, kw_only=True):
    """What was judged: an output by a metric, the original's score as people know it, what may be lost and in which
    unit. `score_unit` is the score's own: "%" for a share, shown as hundredths, "dB", or the truth's. `named`: that
    the task asks for it; `truth` that it says what is right."""

    output: str
    metric: str
    original: float | None
    limit: float
    unit: str
    named: bool
    truth: bool
    score_unit: str = ""


class Limited(StrictRecord, frozen=True, kw_only=True):
    """What every rung had to keep; sizes in bytes, None where there was no bound."""

    max_drop: float
    confidence: float
    accept_undecided: bool
    max_size: int | None
    max_latency_ms: float | None
    max_memory_mb: float | None
    disk_bytes: int


class Report(StrictRecord, frozen=True, kw_only=True):
    """One compression run. Sizes in bytes; `max_drop` is the first output's, as are all drops of a candidate that name
    no output, in `unit`. `confirmation_samples` of the evaluation samples had no
    say in the choice; `fastest` is the rung with the least latency on this host."""

    schema: int = REPORT_SCHEMA
    name: str
    version: str
    command: str
    profile: str
    metric: str
    judged: tuple[JudgedReport, ...]
    max_drop: float
    unit: str
    limits: Limited
    evaluation_samples: int
    confirmation_samples: int
    calibration_samples: int
    calibration_overlap: int
    original_score: float
    original_size: int
    original: Timing
    ladder: tuple[str, ...]
    fastest: str
    eight_bit: EightBit
    notes: tuple[str, ...]
    candidates: tuple[CandidateReport, ...]
    environment: Environment


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a report says besides what was found."""

    name: str
    version: str
    command: str
    task: Task
    profile: DeviceProfile
    options: Options
    environment: Environment


def make_report(run: Run, found: SearchResult, layers: Mapping[str, tuple[LayerError, ...]]) -> Report:
    """Return the report of a run. `layers` are the errors of rungs by id."""
    limits, options = found.limits, run.options
    return Report(
        name=run.name,
        version=run.version,
        command=run.command,
        profile=run.profile.name,
        metric=run.task.metric,
        judged=tuple(_judged(found)),
        max_drop=limits.max_drop,
        unit=found.jury.first_limit.unit,
        limits=Limited(
            max_drop=limits.max_drop,
            confidence=options.confidence,
            accept_undecided=limits.accept_undecided,
            max_size=limits.max_size,
            max_latency_ms=limits.max_latency_ms,
            max_memory_mb=limits.max_memory_mb,
            disk_bytes=limits.disk_bytes,
        ),
        evaluation_samples=found.x.shape[0],
        confirmation_samples=found.confirming.stop - found.confirming.start,
        calibration_samples=min(options.calibration, run.task.calibration.shape[0]),
        calibration_overlap=run.task.overlap,
        original_score=found.score,
        original_size=run.task.model.stat().st_size,
        original=timing(found.timing),
        ladder=found.ladder.rungs,
        fastest=fastest(found),
        eight_bit=eight_bit(found),
        notes=notes(run.task, found, options.confidence),
        candidates=tuple(candidate_report(one, layers.get(one.id, ())) for one in found.candidates),
        environment=run.environment,
    )


def travelling(report: Report) -> Report:
    """Return the report as every device downloads it with the bundle: rungs whole, of all others what was lost, what
    it weighs and why it is none; files equal to another one's are not listed. All of a report is with `--json`."""
    listed = [one for one in report.candidates if one.status != "duplicate"]
    return msgspec.structs.replace(
        report, candidates=tuple(one if one.status == "kept" else _in_brief(one) for one in listed)
    )


def _in_brief(one: CandidateReport) -> CandidateReport:
    none: dict[str, Any] = {"recipe": "", "changes": (), "exactness": None, "choosing": None, "layers": ()}
    quality = one.quality and msgspec.structs.replace(one.quality, outputs=(), fidelity=())
    return msgspec.structs.replace(one, **none, quality=quality)


def _judged(found: SearchResult) -> Iterator[JudgedReport]:
    jury = found.jury
    for one, limit, score in zip(jury.judged, jury.limits, jury.original_scores, strict=True):
        yield JudgedReport(
            output=one.name,
            metric=one.metric.name,
            original=score if math.isfinite(score) else None,
            limit=limit.value,
            unit=limit.unit,
            named=one.named,
            truth=one.truth is not None,
            score_unit=score_unit(one, limit),
        )


def score_unit(one: JudgedAnswer, limit: OutputLimit) -> str:
    """Return the unit of a score as people know it: "%" of a share, "dB", or the unit the task gives its truth."""
    if one.metric.unit == "decibels" or (one.metric.unit == "fidelity" and not limit.exact):
        return "dB"
    if one.metric.unit == "fidelity" or one.metric.name == "mape" or one.metric.name in METRIC_SHARES:
        return "%"
    return one.spec.unit if one.spec is not None and one.spec.unit else ""


def timing(measured: Measurement) -> Timing:
    """Return the record of a measurement."""
    return Timing(
        latency=measured.latency,
        load_ms=measured.loaded.load_ms,
        first_ms=measured.loaded.first_ms,
        peak_memory_mb=measured.loaded.peak_memory_mb,
    )


def candidate_report(one: Candidate, layers: tuple[LayerError, ...]) -> CandidateReport:
    """Return the record of a candidate."""
    return CandidateReport(
        id=one.id,
        summary=one.recipe.summary,
        recipe=one.recipe.text,
        status=one.status,
        reason=one.reason,
        taken_over=one.taken_over,
        changes=one.changes,
        build_s=one.build_s,
        build_memory_mb=one.build_memory_mb,
        size=one.size,
        sha256=one.sha256,
        quality=one.quality,
        choosing=one.choosing,
        confirmation=one.confirmation,
        exactness=one.exactness,
        pace=one.pace,
        timing=timing(one.measured) if one.measured is not None else None,
        layers=layers,
    )
