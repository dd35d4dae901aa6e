"""The report's pictures as coordinates: pure arithmetic, no markup. `templates/report.html.j2` draws them as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edge_bench.outputs.axes import Axis, Tick, ticks

WIDTH, HEIGHT = 520.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 16.0, 14.0, 40.0
"""Size of a chart and its margins, in SVG units."""

FOOT = 0.06
"""Share of a chart's height below its lowest point: dots do not sit on the axis."""

Kind = Literal["rung", "fastest", "original", "out"]


@dataclass(frozen=True, kw_only=True)
class Point:
    """Something to place: what it is called, where it is and what became of it."""

    label: str
    x: float
    y: float
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A point in SVG units; `beyond`: it lies above the chart and is drawn at its edge."""

    x: float
    y: float
    label: str
    kind: Kind
    beyond: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Everything to draw; `limit` is the height of the horizontal line of the drop limit, if there is one."""

    title: str
    x_title: str
    y_title: str
    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    limit: float | None = None
    lines: tuple[str, ...] = ()


def scatter(points: Sequence[Point], *, title: str, x_title: str, limit: float, unit: str = "points") -> Chart:
    """Return losses over a cost. What lost more than the chart's height lies at its upper edge."""
    high = max(2.0 * limit, 1.0 if unit == "points" else 1e-6)
    low = min([0.0, *(point.y for point in points)])
    low -= FOOT * (high - low)
    right = max([1.0, *(point.x for point in points)]) * 1.05
    x_axis, y_axis = Axis(0.0, right, LEFT, WIDTH - RIGHT), Axis(low, high, HEIGHT - BOTTOM, TOP)
    dots = [
        Dot(
            x=x_axis(point.x),
            y=y_axis(min(point.y, high)),
            label=point.label,
            kind=point.kind,
            beyond=point.y > high,
        )
        for point in points
    ]
    return Chart(
        title=title,
        x_title=x_title,
        y_title=f"{unit} lost",
        dots=tuple(dots),
        x_ticks=tuple(Tick(at=x_axis(value), text=f"{value:g}") for value in ticks(0.0, right)),
        y_ticks=tuple(Tick(at=y_axis(value), text=f"{value:g}") for value in ticks(low, high)),
        limit=y_axis(limit),
    )


def layer_line(title: str, decibels: Sequence[float | None]) -> Chart:
    """Return the signal-to-noise ratio over the layers in order; the line breaks where a layer has no counterpart."""
    known = [value for value in decibels if value is not None]
    high = max([10.0, *known]) * 1.05
    x_axis = Axis(0.0, max(1.0, len(decibels) - 1.0), LEFT, WIDTH - RIGHT)
    y_axis = Axis(min([0.0, *known]), high, HEIGHT - BOTTOM, TOP)
    lines, current = [], list[str]()
    for index, value in enumerate([*decibels, None]):
        if value is not None:
            current.append(f"{x_axis(index):.1f},{y_axis(value):.1f}")
        elif current:
            lines.append(" ".join(current))
            current = []
    dots = tuple(
        Dot(x=x_axis(index), y=y_axis(value), label=f"layer {index + 1}: {value:.1f} dB", kind="rung")
        for index, value in enumerate(decibels)
        if value is not None
    )
    return Chart(
        title=title,
        x_title="layer, in the order of the graph",
        y_title="SQNR, dB",
        dots=dots,
        x_ticks=tuple(
            Tick(at=x_axis(value), text=f"{value + 1:g}") for value in ticks(0, len(decibels) - 1, least=1.0)
        ),
        y_ticks=tuple(Tick(at=y_axis(value), text=f"{value:g}") for value in ticks(0.0, high)),
        lines=tuple(lines),
    )
