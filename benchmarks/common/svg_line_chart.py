"""Curves as one small SVG of panels side by side: the same bytes for the same numbers, no library, no fonts to load.

Colors hold on white and on dark pages. What is drawn is decided by the reports that call `draw`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

PANEL_W, PANEL_H = 250.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 12.0, 26.0, 38.0
"""Size of a panel and its margins, in SVG units."""

COLORS = ("#2b7bba", "#d95f0e", "#2ca25f", "#8856a7")
GREY = "#808080"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Points (x, y) in order of x, and what they are."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart. The y axis is a share, 0 to 1; `marks` are the numbers written below the x axis."""

    title: str
    x_title: str
    marks: Sequence[float]
    curves: Sequence[Curve]


def draw(panels: Sequence[Panel], *, label: str) -> str:
    """Return the panels in one row, each on its own x axis from 0 to its last mark, with one legend below."""
    width, height = PANEL_W * len(panels), PANEL_H + 22
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img"'
        f' aria-label={quoteattr(label)} font-family="sans-serif" font-size="10" fill="{GREY}">'
    ]
    for index, panel in enumerate(panels):
        parts += [f'<g transform="translate({index * PANEL_W:g} 0)">', *_panel(panel), "</g>"]
    for index, curve in enumerate(panels[0].curves):
        x = LEFT + 150 * index
        parts.append(f'<path d="M{x:g} {PANEL_H + 8:g}h18" stroke="{COLORS[index]}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 24:g}" y="{PANEL_H + 12:g}">{escape(curve.name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel) -> list[str]:
    right, bottom = PANEL_W - RIGHT, PANEL_H - BOTTOM
    most = max(panel.marks)

    def at(x: float, y: float) -> str:
        return f"{LEFT + x / most * (right - LEFT):.1f},{bottom - y * (bottom - TOP):.1f}"

    parts = [f'<text x="{LEFT:g}" y="14" font-size="12" font-weight="bold">{escape(panel.title)}</text>']
    for share in (0.0, 0.5, 1.0):
        y = at(0.0, share).partition(",")[2]
        parts.append(f'<path d="M{LEFT:g} {y}H{right:g}" stroke="{GREY}" stroke-opacity=".35"/>')
        parts.append(f'<text x="{LEFT - 5:g}" y="{float(y) + 3:.1f}" text-anchor="end">{share:g}</text>')
    for mark in panel.marks:
        x = at(mark, 0.0).partition(",")[0]
        parts.append(f'<text x="{x}" y="{bottom + 13:g}" text-anchor="middle">{mark:g}</text>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle:g}" y="{bottom + 28:g}" text-anchor="middle">{escape(panel.x_title)}</text>')
    for color, curve in zip(COLORS, panel.curves, strict=False):
        line = " ".join(at(x, y) for x, y in curve.points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
    return parts
