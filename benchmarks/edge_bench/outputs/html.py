"""The report as one HTML file that needs nothing else: no script, no font, no picture from elsewhere. Every text goes
through the template's escaping: names come from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge_bench.outputs.charts import (
    Bars,
    Measured,
    Picture,
    distribution,
    operator_bars,
    pareto,
    sustained_curves,
)
from edge_bench.outputs.console import SCENARIO_TITLES, remarks
from edge_bench.report import BenchReport, SubjectReport
from edge_contracts.errors import MissingExtraError

TEMPLATE = "report.html.j2"
Cost = Callable[[SubjectReport], float | None]


def html(report: BenchReport) -> str:
    """Return the report as HTML. Raises MissingExtraError without jinja2."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("bench", "jinja2") from error
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).resolve().parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    known = [one for one in report.subjects if one.run is not None and one.latency is not None]
    return environment.get_template(TEMPLATE).render(
        report=report,
        known=known,
        failed=[one for one in report.subjects if one.error is not None],
        scenario=SCENARIO_TITLES[known[0].run.scenario] if known and known[0].run else "",
        shares=(0.5, 0.9, 0.99, 0.999),
        remarks=remarks(report),
        spread=distribution([(one.name, [ms for block in one.rounds_ms for ms in block]) for one in known]),
        sustained=sustained_curves(
            [(one.name, one.run.sustained) for one in known if one.run and one.run.sustained is not None]
        ),
        operators=_operators(known),
        fronts=_fronts(known),
    )


def _operators(known: list[SubjectReport]) -> list[tuple[str, Bars | None]]:
    """Return each profiled model's bars, or why it has none."""
    told: list[tuple[str, Bars | None]] = []
    for one in known:
        profile = None if one.run is None else one.run.profile
        if profile is not None and profile.operators:
            told.append(("", operator_bars(one.name, profile.operators)))
        elif profile is not None:
            told.append((f"{one.name}: {profile.note}", None))
    return told


_COSTS: tuple[tuple[str, str, Cost], ...] = (
    ("Latency", "p50, ms", lambda one: None if one.latency is None else one.latency.p50),
    ("Size", "kB", lambda one: one.size / 1e3),
    ("Memory", "peak, MB", lambda one: one.peak_memory_mb),
)


def _fronts(known: list[SubjectReport]) -> list[Picture]:
    scored = [one for one in known if one.quality is not None]
    if not scored:
        return []
    fronts = []
    for title, unit, cost in _COSTS:
        sign = scored[0].quality.better if scored[0].quality else 1
        points = [
            Measured(name=one.name, cost=value, score=sign * one.quality.score)
            for one in scored
            if one.quality is not None and (value := cost(one)) is not None
        ]
        if points:
            metric = scored[0].quality.metric if scored[0].quality else ""
            fronts.append(pareto(points, title=title, x_title=unit, y_title=metric, sign=sign))
    return fronts
