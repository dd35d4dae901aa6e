"""Record `edgewright demo` in a terminal of its own and draw the recording as an animated SVG.

python docs/tools/demo_picture.py docs/pictures/demo.svg

Pauses are shortened to at most `PAUSE_S`, so that minutes become a quarter of one; nothing else is changed. The picture
needs no script and no font from elsewhere; with `prefers-reduced-motion` it shows the end.
"""

from __future__ import annotations

import html
import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

COLUMNS, ROWS = 96, 24
LINE, CHARACTER, MARGIN, BAR = 18.0, 7.8, 16.0, 30.0
PAUSE_S = 0.7
HOLD_S = 6.0
"""How long the end stays before the recording begins anew."""

CLASSES = {"31": "r", "32": "g", "2": "d", "1": "b"}
"""Colors that are drawn, the first that applies wins."""
STYLE = """
svg { font: 13px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; }
.paper { fill: #12181f; stroke: #3a4652; } text { fill: #d6dde4; white-space: pre; }
.b { font-weight: 700; fill: #ffffff; } .d { fill: #93a1af; } .g { fill: #4cc38a; } .r { fill: #ff7b72; }
@media (prefers-reduced-motion: reduce) { .line, .roll { animation: none !important; } .line { opacity: 1 !important; } }
"""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the terminal and when it was complete, in seconds from the start."""

    at_s: float
    text: str


def record() -> list[Line]:
    """Run the demo in a terminal and return its lines. Raises CalledProcessError when a check of it fails."""
    program = str(Path(sys.executable).with_name("edgewright"))
    environment = os.environ | {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    master, slave = pty.openpty()
    with tempfile.TemporaryDirectory() as folder:
        words = [program, "demo", "--report", str(Path(folder) / "report.json")]
        running = subprocess.Popen(words, stdout=slave, stderr=slave, env=environment, cwd=folder)
        os.close(slave)
        lines = _lines(master)
        if running.wait() != 0:
            raise subprocess.CalledProcessError(running.returncode, words, "\n".join(line.text for line in lines))
    return lines


def _lines(terminal: int) -> list[Line]:
    start, rest, lines = time.monotonic(), b"", [Line(at_s=0.0, text="\x1b[1m$ make demo\x1b[0m")]
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            return lines
        *complete, rest = (rest + piece).split(b"\n")
        now = time.monotonic() - start
        lines += [Line(at_s=now, text=line.decode().rstrip("\r")) for line in complete]


def shortened(lines: list[Line]) -> list[Line]:
    """Return the lines with every pause between two of them cut to PAUSE_S."""
    at_s, result = 0.0, []
    for before, line in zip([lines[0], *lines], lines, strict=False):
        at_s += min(line.at_s - before.at_s, PAUSE_S)
        result.append(Line(at_s=at_s, text=line.text))
    return result


def markup(text: str) -> str:
    """Return one line with its colors as SVG."""
    result, style = "", ""
    for piece in re.split(r"(\x1b\[[0-9;]*m)", text):
        if piece.startswith("\x1b"):
            codes = piece[2:-1].split(";")
            style = next((CLASSES[code] for code in CLASSES if code in codes), "")
        elif piece:
            result += f'<tspan class="{style}">{html.escape(piece)}</tspan>' if style else html.escape(piece)
    return result


def draw(lines: list[Line]) -> str:
    """Return the animated SVG."""
    total = lines[-1].at_s + HOLD_S
    width, height = MARGIN * 2 + COLUMNS * CHARACTER, BAR + MARGIN + ROWS * LINE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
        "<title>Recording of edgewright demo: compress, sign, update over MQTT, refuse, roll back</title>",
        f"<style>{STYLE}{_timing(lines, total)}</style>",
        f'<rect class="paper" x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="8"/>',
        *(f'<circle cx="{18 + 18 * at}" cy="16" r="5" fill="#3a4652"/>' for at in range(3)),
        f'<svg y="{BAR:.0f}" width="{width:.0f}" height="{ROWS * LINE:.0f}"><g class="roll">',
        *(
            f'<text class="line l{number}" x="{MARGIN:.0f}" y="{(number + 0.8) * LINE:.1f}">{markup(line.text)}</text>'
            for number, line in enumerate(lines)
            if line.text.strip()
        ),
        "</g></svg></svg>",
    ]
    return "\n".join(parts) + "\n"


def _timing(lines: list[Line], total: float) -> str:
    end = max(0, len(lines) - ROWS) * LINE
    rules = [f".roll {{ animation: roll {total:.1f}s step-end infinite; transform: translateY({-end:.0f}px); }}"]
    steps = {"0%": 0.0}
    for number, line in enumerate(lines):
        at = f"{100 * line.at_s / total:.2f}%"
        steps[at] = max(0, number + 1 - ROWS) * LINE
        if line.text.strip():
            rules.append(f".l{number} {{ animation: l{number} {total:.1f}s step-end infinite; }}")
            rules.append(f"@keyframes l{number} {{ 0% {{ opacity: 0; }} {at} {{ opacity: 1; }} }}")
    frames = " ".join(f"{at} {{ transform: translateY({-up:.0f}px); }}" for at, up in steps.items())
    rules.append(f"@keyframes roll {{ {frames} }}")
    return "\n".join(rules)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(shortened(record())), encoding="utf-8")
