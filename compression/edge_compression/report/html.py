"""The report as one HTML file that needs nothing else: no script, no font, no picture from elsewhere.

What is said is in `report`; here it is put into words and pictures. Every text goes through the template's escaping:
names and reasons come from models and tools.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_compression.report.advice import advice
from edge_compression.report.charts import Chart, Kind, Point, precision_recall, scatter
from edge_compression.report.evidence import OutputEvidence, RungEvidence, SampleEvidence
from edge_compression.report.explain import counted
from edge_compression.report.gains import fate_counts, gain, gained, lost, score, sized, why_nothing
from edge_compression.report.model import CandidateReport, Report
from edge_contracts.manifest import Manifest

TEMPLATES = Path(__file__).resolve().parent / "templates"
TEMPLATE, FRONT_TEMPLATE = "report.html.j2", "front.html.j2"

FULL_DB = 60.0
"""Signal-to-noise ratio at which a layer's bar is full: more is rounding of float."""

MOST_LAYERS = 40
"""Layers drawn of a rung, the noisiest in the order of the graph; the table has all."""

NO_EVIDENCE = SampleEvidence(data="sample", rungs=(), views={})


@dataclass(frozen=True, kw_only=True)
class LayerBar:
    """One layer: its bar and the ends of its interval in percent of a full one."""

    name: str
    operator: str
    sqnr_db: float | None
    bar: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class OutputPart:
    """What is shown of one output of a rung: its evidence, how many samples differ in words, its curve."""

    seen: OutputEvidence
    counted: str
    chart: Chart | None


@dataclass(frozen=True, kw_only=True)
class RungRow:
    """A kept variant: its report, its place on the ladder, what it gains and loses in words, what its passes did, its
    layers and what it answers otherwise."""

    place: int
    one: CandidateReport
    gain: str
    lost: str
    score: str
    steps: tuple[str, ...]
    layers: tuple[LayerBar, ...]
    outputs: tuple[OutputPart, ...]
    evidence: RungEvidence | None


@dataclass(frozen=True, kw_only=True)
class DownloadPart:
    """A part of what a device downloads, in bytes."""

    what: str
    size: int


def html(report: Report, evidence: SampleEvidence = NO_EVIDENCE, manifest: Manifest | None = None) -> str:
    """Return the report as HTML."""
    seen = {one.id: one for one in evidence.rungs}
    by_id = {one.id: one for one in report.candidates}
    rungs = [_rung(place, by_id[name], report, seen.get(name)) for place, name in enumerate(report.ladder, start=1)]
    others = sorted((one for one in report.candidates if one.status != "kept"), key=lambda one: (one.status, one.id))
    return _render(
        TEMPLATE,
        report=report,
        rungs=rungs,
        gained=[rung for rung in rungs if rung.one.id in {one.one.id for one in gained(report)}],
        nothing=why_nothing(report),
        advice=advice(report),
        others=others,
        fates=", ".join(fate_counts(report)),
        evidence=evidence,
        download=_download(manifest) if manifest is not None else (),
        charts=_charts(report),
        base=report.original.latency.p50,
    )


def front_html(report: Report) -> str:
    """Return the ladder as a table and a chart, to be shown within another page."""
    by_id = {one.id: one for one in report.candidates}
    rungs = [_rung(place, by_id[name], report, None) for place, name in enumerate(report.ladder, start=1)]
    return _render(
        FRONT_TEMPLATE, report=report, rungs=rungs, charts=_charts(report), base=report.original.latency.p50,
        fates=", ".join(fate_counts(report)), nothing=None if gained(report) else why_nothing(report),
    )  # fmt: skip


def _render(template: str, **values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(score=score, sized=sized)
    return environment.get_template(template).render(**values)


def _rung(place: int, one: CandidateReport, report: Report, seen: RungEvidence | None) -> RungRow:
    own = one.quality.outputs[0].score if one.quality is not None and one.quality.outputs else None
    return RungRow(
        place=place,
        one=one,
        gain=gain(one, report).words,
        lost=lost(one, report) if one.quality is not None else "",
        score=score(own, report.judged[0].score_unit),
        steps=tuple(_words(change) for change in one.changes),
        layers=_layers(one),
        outputs=tuple(_part(output) for output in seen.outputs) if seen is not None else (),
        evidence=seen,
    )


def _part(seen: OutputEvidence) -> OutputPart:
    title = f"{seen.output}: precision over recall, boxes that overlap a true one by half"
    return OutputPart(
        seen=seen,
        counted=counted(seen),
        chart=precision_recall(seen.curve, title) if seen.curve is not None else None,
    )


def _layers(one: CandidateReport) -> tuple[LayerBar, ...]:
    known = [layer for layer in one.layers if layer.sqnr_db is not None]
    noisiest = {id(layer) for layer in sorted(known, key=lambda layer: layer.sqnr_db or 0.0)[:MOST_LAYERS]}
    return tuple(
        LayerBar(
            name=layer.name,
            operator=layer.operator,
            sqnr_db=layer.sqnr_db,
            bar=_share(layer.sqnr_db),
            low=_share(layer.low_db),
            high=_share(layer.high_db),
        )
        for layer in one.layers
        if id(layer) in noisiest
    )


def _share(value: float | None) -> float:
    return round(100.0 * min(1.0, max(0.0, value or 0.0) / FULL_DB), 1)


def _download(manifest: Manifest) -> tuple[DownloadPart, ...]:
    """Return what a device downloads that has no release of this model yet."""
    variants = [DownloadPart(what=f"variant {one.id}", size=one.size) for one in manifest.variants]
    proof = sum(manifest.file(one.file).size for one in (manifest.golden, manifest.probe) if one is not None)
    report = manifest.file(manifest.report).size if manifest.report is not None else 0
    rest = manifest.total_bytes - sum(one.size for one in manifest.variants) - proof - report
    parts = [*variants, DownloadPart(what="samples that prove the variants on the device", size=proof)]
    parts += [
        DownloadPart(what="brief report", size=report),
        DownloadPart(what="recipes and the rest", size=max(0, rest)),
    ]
    return (*parts, DownloadPart(what="together, the first time", size=manifest.total_bytes))


def _charts(report: Report) -> tuple[Chart, Chart]:
    return _by_size(report), _by_latency(report)


def _mark(one: CandidateReport, report: Report) -> str:
    """Return what is written beside a rung's dot: its place."""
    return str(report.ladder.index(one.id) + 1) if one.id in report.ladder else ""


def _words(change: dict[str, str | int | float]) -> str:
    """Return what a pass did as a phrase: `static_int8: activations calibrated 12, quantizers 40`."""
    facts = [
        f"{name.replace('_', ' ')} {value:.3g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
        for name, value in change.items()
        if name != "pass"
    ]
    return f"{change.get('pass', '')}: {', '.join(facts) or 'done'}"


def _by_size(report: Report) -> Chart:
    points = [
        Point(
            label=one.id,
            x=one.size / report.original_size,
            y=one.quality.drop,
            kind=_kind(one, report),
            mark=_mark(one, report),
        )
        for one in report.candidates
        if one.quality is not None
    ]
    return scatter(points, title="Size", x_title="bytes, times the original's", limit=report.max_drop, unit=report.unit)


def _by_latency(report: Report) -> Chart:
    points = [
        Point(label=one.id, x=ratio, y=one.quality.drop, kind=_kind(one, report), mark=_mark(one, report))
        for one in report.candidates
        if one.quality is not None and (ratio := _ratio(one, report)) is not None
    ]
    return scatter(
        points,
        title="Latency on this host",
        x_title="latency, times the original's",
        limit=report.max_drop,
        unit=report.unit,
    )


def _ratio(one: CandidateReport, report: Report) -> float | None:
    return one.timing.latency.p50 / report.original.latency.p50 if one.timing is not None else one.pace


def _kind(one: CandidateReport, report: Report) -> Kind:
    if one.id == report.ladder[-1]:
        return "original"
    if one.id == report.fastest:
        return "fastest"
    return "rung" if one.status == "kept" else "out"
