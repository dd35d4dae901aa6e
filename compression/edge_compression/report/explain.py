"""One candidate in sentences: what it is, what it gains, what it loses and on which samples, or why it is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from edge_compression.report.evidence import OutputEvidence, SampleEvidence
from edge_compression.report.gains import gain, lost
from edge_compression.report.model import CandidateReport, Report
from edge_contracts.errors import OperatorError

SAMPLES = 5
"""Samples named of each output."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Sentences about one candidate; `str` joins them, a notebook shows them as paragraphs."""

    name: str
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return "".join(f"<p>{escape(one)}</p>" for one in self.sentences)


def explain(name: str, report: Report, evidence: SampleEvidence) -> Explanation:
    """Return the explanation of a candidate by name. Raises OperatorError naming those there are."""
    one = next((one for one in report.candidates if one.id == name), None)
    if one is None:
        known = ", ".join(sorted(one.id for one in report.candidates)[:40])
        raise OperatorError("was not tried", subject=repr(name)[:80], hint=f"tried were {known}")
    return Explanation(name=name, sentences=tuple(_sentences(one, report, evidence)))


def _sentences(one: CandidateReport, report: Report, evidence: SampleEvidence) -> Iterator[str]:
    yield f"{one.id}: {one.summary}."
    if one.status == "kept":
        place = report.ladder.index(one.id) + 1
        yield f"It is rung {place} of {len(report.ladder)}: {gain(one, report).words}; {lost(one, report)}."
    else:
        yield f"It is no rung: {one.status}: {one.reason}."
        if one.quality is not None:
            yield f"It has {one.size} bytes of the original's {report.original_size}; {lost(one, report)}."
    for output in one.quality.outputs if one.quality is not None else ():
        yield f"{output.words}, {output.verdict}."
    if one.exactness is not None and one.exactness.hazard is not None:
        yield f"Hazard: {one.exactness.hazard}."
    rung = next((seen for seen in evidence.rungs if seen.id == one.id), None)
    for seen in rung.outputs if rung is not None else ():
        yield from _samples(seen, evidence.data)
    worst = sorted((layer for layer in one.layers if layer.sqnr_db is not None), key=lambda layer: layer.sqnr_db or 0.0)
    if worst:
        yield f"The noisiest layer is {worst[0].name} ({worst[0].operator}): {worst[0].sqnr_db:.1f} dB."


def counted(seen: OutputEvidence) -> str:
    """Return how many samples are answered otherwise: `5 of 500 samples: 1 lost, 4 won`."""
    parts = [f"{number} {fate}" for fate, number in seen.counts.items() if number]
    total = sum(seen.counts.values())
    return f"{total} of {seen.samples} samples are answered otherwise" + (f": {', '.join(parts)}" if parts else "")


def _samples(seen: OutputEvidence, data: str) -> Iterator[str]:
    yield f"{seen.output} ({seen.metric}): {counted(seen)}."
    for change in seen.changes[:SAMPLES]:
        truth = f", true is {change.truth}" if change.truth else ""
        yield f"{data} {change.sample}: {change.before} became {change.after}{truth} ({change.fate})."
