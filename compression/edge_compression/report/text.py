"""The report on a console: the ladder in a few lines with what to try next, and one table of everything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edge_compression.evaluation.fidelity import Fidelity
from edge_compression.evaluation.quality import OutputQuality
from edge_compression.report.advice import advice
from edge_compression.report.gains import fate_counts, gain, gained, rungs, score, sized, why_nothing
from edge_compression.report.model import CandidateReport, JudgedReport, Report

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("variant", "drop", "95 % interval", "agree", "exact", "ms", "x", "kB", "MB", "")

MOST_RUNGS, MOST_OUTPUTS, MOST_ADVICE = 6, 3, 3
"""Lines of the short form: the rest is counted, in the page and behind --verbose."""


def short(report: Report) -> Iterator[str]:
    """Yield the lines that stand first: the original, the ladder, what became of the others, what to try next."""
    first = report.judged[0]
    original = f"original {sized(report.original_size)}, {report.original.latency.p50:.3g} ms"
    scores = ", ".join(
        f"{one.metric} {score(one.original, one.score_unit)}" + (f" ({one.output})" if len(report.judged) > 1 else "")
        for one in report.judged[:MOST_OUTPUTS]
    )
    what = f"{report.name} {report.version} for {report.profile}"
    yield f"{what}: {original}, {scores} on {report.evaluation_samples} samples"
    yield from _columns([_heads(first, report.unit), *(_rung_row(one, report) for one in rungs(report)[:MOST_RUNGS])])
    if len(report.ladder) > MOST_RUNGS:
        yield f"and {len(report.ladder) - MOST_RUNGS} rungs more, in the report"
    others = len(report.candidates) - len(report.ladder)
    if others:
        yield f"{others} others are no rungs: {', '.join(fate_counts(report))} (--verbose lists them)"
    yield from (f"Next: {one.line}." for one in advice(report)[:MOST_ADVICE])


def last(report: Report) -> str | None:
    """Return the last line where nothing was gained, else None."""
    if gained(report):
        return None
    return f"Nothing was gained: no rung is worth more than the original ({why_nothing(report)})."


def _heads(first: JudgedReport, unit: str) -> list[str]:
    name = first.metric if first.score_unit else f"{first.metric}, unit of y"
    return ["rung", "variant", name, f"lost, {unit} (95 %)", "size", "of bytes", "ms here", "of latency", "MB"]


def _rung_row(one: CandidateReport, report: Report) -> list[str]:
    found, cost = gain(one, report), one.timing
    place = f"{report.ladder.index(one.id) + 1}"
    quality, first = one.quality, report.judged[0]
    own = quality.outputs[0].score if quality is not None and quality.outputs else None
    interval = quality.drop_interval if quality is not None else None
    return [
        place,
        one.id + (" (fastest)" if one.id == report.fastest and len(report.ladder) > 1 else ""),
        score(own, first.score_unit),
        ""
        if quality is None or interval is None
        else f"{quality.drop:.2f} ({interval.low:.2f} to {interval.high:.2f})",
        sized(one.size),
        f"{found.bytes_ratio:.2f}",
        f"{found.latency_ms:.3f}",
        f"{found.latency_ratio:.2f}",
        f"{cost.peak_memory_mb:.1f}" if cost is not None else "",
    ]


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows as lines, names to the left and figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            text.ljust(width) if place == 1 else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def table(report: Report) -> Table:
    """Return the console's table: the original, then everything tried, rungs first."""
    from rich.table import Table

    drawn = Table(*COLUMNS, title=f"{report.name} {report.version} for {report.profile}, losses in {report.unit}")
    base = report.original
    score = f"{report.judged[0].original or 0.0:.4g} {report.metric}"
    drawn.add_row(
        "original", score, "", "", "", f"{base.latency.p50:.3f}", "1.00",
        f"{report.original_size / 1e3:.0f}", f"{base.peak_memory_mb:.1f}", "",
    )  # fmt: skip
    place = {name: index for index, name in enumerate(report.ladder)}
    for one in sorted(report.candidates, key=lambda one: place.get(one.id, len(place))):
        drawn.add_row(*_row(one, report, place.get(one.id)), style="" if one.id in place else "dim")
        if one.id in place and one.quality is not None and len(report.judged) > 1:
            for output in one.quality.outputs:
                drawn.add_row(*_output_row(output, one.quality.fidelity))
    return drawn


def _output_row(output: OutputQuality, fidelity: Sequence[Fidelity]) -> list[str]:
    """Return the line of one output below its rung: what it loses in its own unit, against its own limit."""
    near = next((one for one in fidelity if one.output == output.output), None)
    interval = output.drop_interval
    words = f"{output.metric} {output.score:.4g}, original {output.original:.4g}"
    snr = f"; {near.snr_db:.0f} dB" if near is not None and near.snr_db is not None else ""
    return [
        f"  {output.output}",
        f"{output.drop:.2f} {output.unit}",
        f"{interval.low:.2f} to {interval.high:.2f}",
        *[""] * 6,
        f"{words}, limit {output.limit:g} {output.unit}{snr}",
    ]


def _row(one: CandidateReport, report: Report, place: int | None) -> list[str]:
    quality, exact, cost = one.quality, one.exactness, one.timing
    preliminary = f"{one.pace:.2f}" if one.pace is not None else ""
    fate = f"{one.status}: {one.reason}"
    if place is not None:
        fate = f"rung {place + 1}" + (", fastest here" if one.id == report.fastest else "")
    return [
        one.id,
        f"{quality.drop:.2f}" if quality else "",
        f"{quality.drop_interval.low:.2f} to {quality.drop_interval.high:.2f}" if quality else "",
        f"{quality.agreement:.1%}" if quality and quality.agreement is not None else "",
        f"{exact.score_exact:.4f}" + (" !" if exact.hazard else "") if exact else "",
        f"{cost.latency.p50:.3f}" if cost else "",
        f"{cost.latency.p50 / report.original.latency.p50:.2f}" if cost else preliminary,
        f"{one.size / 1e3:.0f}" if one.size else "",
        f"{cost.peak_memory_mb:.1f}" if cost else "",
        fate,
    ]
