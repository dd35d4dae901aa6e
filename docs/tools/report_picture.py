"""Draw the charts of a compression report as one SVG that is readable in light and dark.

python docs/tools/report_picture.py build/har.html docs/pictures/report.svg
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

WIDTH, HEIGHT, TOP = 1088, 392, 74
STYLE = """
svg { font: 12px system-ui, 'DejaVu Sans', Helvetica, Arial, sans-serif;
  --ink: #1d2733; --soft: #526170; --line: #dfe5ea; --rung: #00796b; --fast: #c2410c; --out: #9aa8b5; --paper: #ffffff; --over: #b91c1c; }
@media (prefers-color-scheme: dark) { svg { --ink: #e4eaf0; --soft: #a9b6c3; --line: #2c3742; --rung: #4cc3a5; --fast: #f0883e;
  --out: #75879a; --paper: #12181f; --over: #ff7b72; } }
.paper { fill: var(--paper); stroke: var(--line); } text { fill: var(--soft); } text.name, .head { fill: var(--ink); }
.head { font-size: 18px; font-weight: 650; } .axis { stroke: var(--soft); } .grid { stroke: var(--line); }
.limit { stroke: var(--over); stroke-dasharray: 4 3; } text.limit { stroke: none; fill: var(--over); }
circle.rung { fill: var(--rung); } circle.fastest { fill: var(--fast); } circle.original { fill: var(--ink); } circle.out { fill: var(--out); }
circle.beyond { fill: none; stroke: var(--over); } polyline { fill: none; stroke: var(--rung); stroke-width: 1.5; }
"""
KEY = (("rung", "variant in the bundle"), ("fastest", "fastest variant"), ("original", "original"), ("out", "left out"))


def draw(report: str) -> str:
    """Return the picture of a report's first two charts. Raises ValueError when the report has fewer."""
    charts = re.findall(r"<svg viewBox=\"0 0 520 300\".*?</svg>", report, re.DOTALL)[:2]
    if len(charts) < 2:
        raise ValueError("the report has no charts of size and latency")
    title = re.search(r"<h1>(.*?)</h1>", report)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>Compression report: points lost against size and latency</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10"/>',
        f'<text class="head" x="24" y="34">{title[1] if title else "report"}: every candidate that was measured</text>',
    ]
    for at, (kind, words) in enumerate(KEY):
        x = 30 + 190 * at
        parts.append(f'<circle class="{kind}" cx="{x}" cy="54" r="5"/><text x="{x + 12}" y="58">{words}</text>')
    for at, chart in enumerate(charts):
        place = f'<svg x="{12 + 540 * at}" y="{TOP}" width="520" height="300" '
        parts.append(chart.replace("<svg ", place, 1))
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(draw(Path(sys.argv[1]).read_text(encoding="utf-8")), encoding="utf-8")
