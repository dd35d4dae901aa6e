"""The report's pictures as coordinates: pure arithmetic, no markup. `templates/report.html.j2` draws them as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edge_bench.outputs.axes import Axis, Tick, ticks
from edge_compression.report.box_evidence import Curve

WIDTH, HEIGHT = 520.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 66.0, 16.0, 14.0, 52.0
"""Size of a chart and its margins, in SVG units."""

FOOT = 0.06
"""Share of a chart's height below its lowest point: dots do not sit on the axis."""

Kind = Literal["rung", "fastest", "original", "out"]


@dataclass(frozen=True, kw_only=True)
class Point:
    """Something to place: what it is called, where it is and what became of it; `mark` is written beside it."""

    label: str
    x: float
    y: float
    kind: Kind
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A point in SVG units; `beyond`: it lies above the chart and is drawn at its edge."""

    x: float
    y: float
    label: str
    kind: Kind
    beyond: bool = False


@dataclass(frozen=True, kw_only=True)
class Label:
    """A text at a place in SVG units; `anchor` is SVG's."""

    x: float
    y: float
    text: str
    anchor: Literal["start", "middle", "end"]


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
    labels: tuple[Label, ...] = ()


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
        labels=labels(dots, [point.mark for point in points]),
        x_ticks=tuple(Tick(at=x_axis(value), text=f"{value:g}") for value in ticks(0.0, right)),
        y_ticks=tuple(Tick(at=y_axis(value), text=f"{value:g}") for value in ticks(low, high)),
        limit=y_axis(limit),
    )


def precision_recall(curve: Curve, title: str) -> Chart:
    """Return precision over recall of the original (first line) and of a rung, with both at the threshold."""
    x_axis, y_axis = Axis(0.0, 100.0, LEFT, WIDTH - RIGHT), Axis(0.0, 105.0, HEIGHT - BOTTOM, TOP)
    lines = tuple(
        " ".join(f"{x_axis(100.0 * recall)},{y_axis(100.0 * precision)}" for recall, precision in points)
        for points in (curve.before, curve.after)
    )
    ends: tuple[tuple[tuple[float, float], Kind, str], ...] = (
        (curve.at_before, "original", "original"),
        (curve.at_after, "rung", "this rung"),
    )
    dots = tuple(
        Dot(
            x=x_axis(100.0 * at[0]), y=y_axis(100.0 * at[1]), kind=kind,
            label=f"{name} at score {curve.threshold:g}: recall {at[0]:.1%}, precision {at[1]:.1%}",
        )
        for at, kind, name in ends
    )  # fmt: skip
    return Chart(
        title=title,
        x_title="recall, %",
        y_title="precision, %",
        dots=dots,
        x_ticks=tuple(Tick(at=x_axis(value), text=f"{value:g}") for value in ticks(0.0, 100.0)),
        y_ticks=tuple(Tick(at=y_axis(value), text=f"{value:g}") for value in ticks(0.0, 100.0)),
        lines=lines,
    )


TEXT_WIDTH, TEXT_HEIGHT = 11.0, 17.0
"""Size of one character of a label in SVG units, as large as narrow screens show it."""

PLACES = ((9, -6), (9, 18), (-9, -6), (-9, 18), (9, -26), (9, 38), (-9, -26), (-9, 38), (0, -14), (0, 30))
"""Where a label may stand beside its dot, the best first; to the left of it where the first number is below 0."""


def labels(dots: Sequence[Dot], texts: Sequence[str]) -> tuple[Label, ...]:
    """Return labels of the dots that have a text, none over another nor outside the chart, as far as there is room."""
    taken: list[tuple[float, float, float, float]] = []
    made = []
    for dot, text in zip(dots, texts, strict=True):
        if text:
            chosen = _free(dot, text, taken)
            taken.append(_extent(chosen))
            made.append(chosen)
    return tuple(made)


def _free(dot: Dot, text: str, taken: Sequence[tuple[float, float, float, float]]) -> Label:
    tried = [
        Label(x=dot.x + dx, y=dot.y + dy, text=text, anchor="start" if dx > 0 else "end" if dx < 0 else "middle")
        for dx, dy in PLACES
    ]
    free = (one for one in tried if not any(_overlap(_extent(one), other) for other in taken) and _inside(one))
    return next(free, tried[0])


def _inside(one: Label) -> bool:
    left, top, right, bottom = _extent(one)
    return left >= LEFT and right <= WIDTH and top >= 0.0 and bottom <= HEIGHT - BOTTOM


def _extent(one: Label) -> tuple[float, float, float, float]:
    width = TEXT_WIDTH * len(one.text)
    left = one.x - {"start": 0.0, "middle": width / 2, "end": width}[one.anchor]
    return left, one.y - TEXT_HEIGHT, left + width, one.y


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
