"""The report as one HTML file that needs nothing else: no script, no font, no picture from elsewhere.

What is said is in `report`; here it is put into words and pictures. Every text goes through the template's escaping:
names and reasons come from models and tools.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_compression.report.charts import Chart, Kind, Point, layer_line, scatter
from edge_compression.report.model import CandidateReport, Report

TEMPLATES = Path(__file__).resolve().parent / "templates"
TEMPLATE = "report.html.j2"


@dataclass(frozen=True, kw_only=True)
class RungRow:
    """A kept variant: its report, its place on the ladder, what its passes did in words, the picture of its layers."""

    place: int
    one: CandidateReport
    steps: tuple[str, ...]
    picture: Chart | None


def html(report: Report) -> str:
    """Return the report as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    by_id = {one.id: one for one in report.candidates}
    rungs = [_rung(place, by_id[name]) for place, name in enumerate(report.ladder, start=1)]
    lost = sorted((one for one in report.candidates if one.status != "kept"), key=lambda one: (one.status, one.id))
    return environment.get_template(TEMPLATE).render(
        report=report,
        rungs=rungs,
        lost=lost,
        charts=(_by_size(report), _by_latency(report)),
        base=report.original.latency.p50,
    )


def _rung(place: int, one: CandidateReport) -> RungRow:
    measured = [layer.sqnr_db for layer in one.layers]
    picture = layer_line(f"{one.id}: error by layer", measured) if any(v is not None for v in measured) else None
    return RungRow(place=place, one=one, steps=tuple(_words(change) for change in one.changes), picture=picture)


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
        Point(label=one.id, x=one.size / report.original_size, y=one.quality.drop, kind=_kind(one, report))
        for one in report.candidates
        if one.quality is not None
    ]
    return scatter(points, title="Size", x_title="bytes, original = 1", limit=report.max_drop, unit=report.unit)


def _by_latency(report: Report) -> Chart:
    points = [
        Point(label=one.id, x=ratio, y=one.quality.drop, kind=_kind(one, report))
        for one in report.candidates
        if one.quality is not None and (ratio := _ratio(one, report)) is not None
    ]
    return scatter(
        points, title="Latency on this host", x_title="latency, original = 1", limit=report.max_drop, unit=report.unit
    )


def _ratio(one: CandidateReport, report: Report) -> float | None:
    return one.timing.latency.p50 / report.original.latency.p50 if one.timing is not None else one.pace


def _kind(one: CandidateReport, report: Report) -> Kind:
    if one.id == report.ladder[-1]:
        return "original"
    if one.id == report.fastest:
        return "fastest"
    return "rung" if one.status == "kept" else "out"
