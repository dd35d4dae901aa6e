"""The report on the console: one row a model, and what is to be said under it."""

from __future__ import annotations

from rich.table import Table

from edge_bench.compare import compare_reports
from edge_bench.report import BenchReport, SubjectReport

PLACE = 0.05
"""What a process's place in memory makes two of the same model differ by, all their lives."""


def table(report: BenchReport) -> Table:
    """Return the console's table."""
    run = next((one.run for one in report.subjects if one.run is not None), None)
    title = f"{report.subject}, {report.inputs}" + ("" if run is None else f", {SCENARIO_TITLES[run.scenario]}")
    late = run is not None and run.deadline_ms is not None
    columns = [
        "model",
        "kB",
        "load ms",
        "first ms",
        "p50 ms",
        "95 % interval",
        "p90",
        "p99",
        "p99.9",
        "frames/s",
        "CPU ms",
    ]
    columns += ["late"] if late else []
    columns += ["peak MB", "mean MB", "cv"]
    columns += [f"{report.metric} (95 %)", "worst slice"] if report.metric is not None else []
    drawn = Table(*columns, "", title=title)
    for one in report.subjects:
        row = _row(one, late=late, scored=report.metric is not None)
        drawn.add_row(*row, *[""] * (len(columns) - len(row)), _verdict(one))
    return drawn


SCENARIO_TITLES = {
    "single_stream": "single stream",
    "multi_stream": "multi stream",
    "server": "server",
    "offline": "offline",
}


def _row(one: SubjectReport, *, late: bool, scored: bool) -> list[str]:
    run, latency = one.run, one.latency
    if latency is None or run is None or one.load_ms is None or one.first_ms is None:
        return [one.name, f"{one.size / 1e3:.0f}"]
    told = {found.share: f"{found.ms:.3f}" for found in run.percentiles}
    spread = next((found.interval for found in run.percentiles if found.share == 0.5), latency.p50_interval)
    row = [one.name, f"{one.size / 1e3:.0f}", f"{one.load_ms:.1f}", f"{one.first_ms:.2f}", f"{latency.p50:.3f}"]
    row += [f"{spread.low:.3f} to {spread.high:.3f}", *(told.get(share, "") for share in (0.9, 0.99, 0.999))]
    row += [f"{run.frames_per_s:.0f}", f"{run.cpu_ms:.3f}"]
    row += [f"{run.late} of {run.queries}"] if late else []
    memory = run.memory
    row += ["", ""] if memory is None else [f"{memory.peak_mb:.1f}", f"{memory.average_mb:.1f}"]
    row += [f"{run.cv:.1%}"]
    return row + (_quality(one) if scored else [])


def _quality(one: SubjectReport) -> list[str]:
    found = one.quality
    if found is None:
        return ["", ""]
    spread = "" if found.interval is None else f" ({found.interval.low:.3f} to {found.interval.high:.3f})"
    worst = "" if found.worst_score is None else f"{found.worst_slice} {found.worst_score:.3f}"
    return [f"{found.score:.4f}{spread}", worst]


def _verdict(one: SubjectReport) -> str:
    if one.error is not None:
        return f"failed: {one.error}"
    if one.run is None:
        return ""
    words = ["VALID" if one.run.judgement.valid else "INVALID"]
    return ", ".join(words + ([] if one.run.stable else ["unstable"]))


def remarks(report: BenchReport) -> list[str]:
    """Return what is to be said under the table: who wins and by how much, why a run is INVALID or unstable."""
    told = list(_winner(report))
    for one in report.subjects:
        if one.run is None:
            continue
        told += [f"INVALID: {one.name}: {reason}" for reason in one.run.judgement.reasons]
        word = "Disturbed, p99 far from p50" if one.run.stable else "Unstable"
        told += [f"{word}: {one.name}: {cause}" for cause in one.run.causes]
    return told


def _winner(report: BenchReport) -> list[str]:
    """Say which of several models is fastest and by how much, if by more than two processes of one model are."""
    known = [one for one in report.subjects if one.latency is not None and len(one.rounds_ms) >= 3]
    if len(known) < 2:
        return []
    first, second = sorted(known, key=lambda one: one.latency.p50 if one.latency else 0.0)[:2]
    found = compare_reports((first.name, second.name), (first, second), report.seed)
    spread = f"{found.ratio:.3f} times ({found.low:.3f} to {found.high:.3f})"
    if found.verdict != "a" or found.low < 1.0 + PLACE:
        hint = "a process's place in memory alone makes 5 %; `edgewright bench compare` tells"
        return [f"No winner: {second.name} takes {spread} as long as {first.name}; {hint}."]
    return [f"Fastest: {first.name}; {second.name}, the next, takes {spread} as long."]
