"""The report's pictures as coordinates: pure arithmetic, no markup. `report.html.j2` draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_bench.outputs.axes import Axis, Tick, log_ticks, ticks
from edge_bench.protocol import OperatorCost
from edge_bench.scenarios.operators import by_kind
from edge_bench.scenarios.sustain import Sustained

WIDTH, HEIGHT = 520.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 18.0, 14.0, 40.0
"""Size of a chart and its margins, in SVG units."""

NINES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)
ALIKE = 0.01
"""Costs within so much of each other are no reason to be dominated."""

NEAR = 22.0
"""Points nearer than this share a label, in SVG units."""

BAR_H, MOST_BARS = 22.0, 12


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve: what it is, which color it has, and its points as SVG writes them."""

    name: str
    color: int
    points: str
    dots: tuple[tuple[float, float, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point of a scatter chart in SVG units; `grey` ones are dominated. `label` has its number and those of points
    that lie on it; it is empty where another point has said so."""

    number: int
    name: str
    x: float
    y: float
    label: str
    grey: bool
    told: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A chart of lines or marks with its axes."""

    title: str
    x_title: str
    y_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...] = ()
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One kind of operators: its bar's place and width in SVG units, and what it says."""

    name: str
    y: float
    width: float
    told: str


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Where the time goes in one model."""

    title: str
    height: float
    bars: tuple[Bar, ...]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A model on two axes: its cost, and its score so that more is better."""

    name: str
    cost: float
    score: float


def distribution(models: Sequence[tuple[str, Sequence[float]]]) -> Picture | None:
    """Return latencies over percentiles, both spread where the slow ones are; None without latencies."""
    found = [(name, np.sort(np.asarray(values))) for name, values in models if len(values)]
    if not found:
        return None
    most = max(values.size for _, values in found)
    nines = max(1.0, math.log10(most))
    low, high = (fold(float(values[end]) for _, values in found) for fold, end in ((min, 0), (max, -1)))
    low, high = max(low * 0.95, 1e-6), high * 1.05
    x_axis = Axis(0.0, nines, LEFT, WIDTH - RIGHT)
    y_axis = Axis(low, high, HEIGHT - BOTTOM, TOP, log=True)
    lines = []
    for color, (name, values) in enumerate(found):
        beyond = np.linspace(0.0, math.log10(values.size) if values.size > 1 else 0.0, 160)
        places = np.minimum((1.0 - 10.0**-beyond) * values.size, values.size - 1).astype(np.intp)
        points = " ".join(
            f"{x_axis(b)},{y_axis(max(float(values[p]), low))}" for b, p in zip(beyond, places, strict=True)
        )
        lines.append(Line(name=name, color=color % 6, points=points))
    return Picture(
        title="Latency distribution",
        x_title="percentile of queries",
        y_title="latency, ms",
        x_ticks=tuple(
            Tick(at=x_axis(-math.log10(1.0 - share)), text=f"{100 * share:g}")
            for share in NINES
            if -math.log10(1.0 - share) <= nines
        ),
        y_ticks=tuple(Tick(at=y_axis(value), text=f"{value:g}") for value in log_ticks(low, high)),
        lines=tuple(lines),
    )


def sustained_curves(models: Sequence[tuple[str, Sustained]]) -> list[Picture]:
    """Return latency over time, and temperature and clock where the machine tells them."""
    pictures = []
    for title, field, unit in (
        ("Latency over time", "p50_ms", "median of a window, ms"),
        ("Temperature over time", "temperature_c", "°C"),
        ("Clock over time", "frequency_mhz", "MHz"),
    ):
        told = [
            (
                name,
                [(w.at_s, value, bool(w.throttled)) for w in one.windows if (value := getattr(w, field)) is not None],
            )
            for name, one in models
        ]
        told = [(name, points) for name, points in told if points]
        if told:
            pictures.append(_over_time(title, unit, told))
    return pictures


def _readings(one: Sustained, field: str) -> list[tuple[float, float, bool]]:
    return [(w.at_s, value, bool(w.throttled)) for w in one.windows if (value := getattr(w, field)) is not None]


def _over_time(title: str, unit: str, told: Sequence[tuple[str, list[tuple[float, float, bool]]]]) -> Picture:
    values = [value for _, points in told for _, value, _ in points]
    end = max([1.0, *(at for _, points in told for at, _, _ in points)])
    low, high = min(0.0, *values), (max(values) or 1.0) * 1.08
    x_axis, y_axis = Axis(0.0, end, LEFT, WIDTH - RIGHT), Axis(low, high, HEIGHT - BOTTOM, TOP)
    lines = []
    for color, (name, points) in enumerate(told):
        placed = [(x_axis(at), y_axis(value), hot) for at, value, hot in points]
        lines.append(
            Line(
                name=name,
                color=color % 6,
                points=" ".join(f"{x},{y}" for x, y, _ in placed),
                dots=tuple((x, y, f"{name}: throttled") for x, y, hot in placed if hot),
            )
        )
    return Picture(
        title=title,
        x_title="seconds without a pause",
        y_title=unit,
        x_ticks=tuple(Tick(at=x_axis(value), text=f"{value:g}") for value in ticks(0.0, end)),
        y_ticks=tuple(Tick(at=y_axis(value), text=f"{value:g}") for value in ticks(low, high)),
        lines=tuple(lines),
    )


def dominated(one: Measured, others: Sequence[Measured]) -> bool:
    """Tell whether another is at least as good at both and better at one; a cost within 1 % is no difference."""
    return any(
        other.cost <= one.cost
        and other.score >= one.score
        and (other.cost < one.cost * (1.0 - ALIKE) or other.score > one.score)
        for other in others
    )


def pareto(models: Sequence[Measured], *, title: str, x_title: str, y_title: str, sign: int = 1) -> Picture:
    """Return scores over a cost. `sign` -1 says that scores were turned so that more is better."""
    scores = [one.score for one in models]
    spread = (max(scores) - min(scores)) or abs(scores[0]) * 0.1 or 1.0
    low, high = min(scores) - 0.15 * spread, max(scores) + 0.15 * spread
    right = max(one.cost for one in models) * 1.1 or 1.0
    x_axis, y_axis = Axis(0.0, right, LEFT, WIDTH - RIGHT), Axis(low, high, HEIGHT - BOTTOM, TOP)
    places = [(x_axis(one.cost), y_axis(one.score)) for one in models]
    marks = [
        Mark(
            number=number,
            name=one.name,
            x=place[0],
            y=place[1],
            label=_label(number, places),
            grey=dominated(one, models),
            told=f"{one.name}: {x_title} {one.cost:.4g}, {y_title} {sign * one.score:.4g}",
        )
        for number, (one, place) in enumerate(zip(models, places, strict=True), start=1)
    ]
    return Picture(
        title=title,
        x_title=x_title,
        y_title=y_title,
        x_ticks=tuple(Tick(at=x_axis(value), text=f"{value:g}") for value in ticks(0.0, right)),
        y_ticks=tuple(Tick(at=y_axis(value), text=f"{sign * value:g}") for value in ticks(low, high)),
        marks=tuple(sorted(marks, key=lambda mark: not mark.grey)),
    )


def _label(number: int, places: Sequence[tuple[float, float]]) -> str:
    """Return the numbers of all points that lie where one does; nothing for all but the first of them."""
    here = places[number - 1]
    near = [at for at, place in enumerate(places, start=1) if math.dist(place, here) < NEAR]
    return ", ".join(map(str, near)) if near[0] == number else ""


def operator_bars(name: str, operators: Sequence[OperatorCost]) -> Bars:
    """Return the shares of kinds of operators, the dearest first; many small ones are drawn as one."""
    kinds = by_kind(operators)
    rest = kinds[MOST_BARS:]
    shown = kinds[:MOST_BARS] + ([("others", sum(k[1] for k in rest), sum(k[2] for k in rest))] if rest else [])
    most = max((share for _, share, _ in shown), default=1.0) or 1.0
    bars = tuple(
        Bar(
            name=kind,
            y=round(TOP + place * BAR_H, 1),
            width=round(share / most * (WIDTH - 250.0), 1),
            told=f"{share:.1%}, {count} node{'s' if count > 1 else ''}",
        )
        for place, (kind, share, count) in enumerate(shown)
    )
    return Bars(title=f"{name}: where the time goes", height=2 * TOP + BAR_H * len(bars), bars=bars)
