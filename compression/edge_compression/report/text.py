"""The report on a console: one table and the notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_compression.evaluation.fidelity import Fidelity
from edge_compression.evaluation.quality import OutputQuality
from edge_compression.report.model import CandidateReport, Report

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("variant", "drop", "95 % interval", "agree", "exact", "ms", "x", "kB", "MB", "")


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
