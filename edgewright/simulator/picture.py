"""The completion curve of a simulated rollout as an SVG without scripts, for light and dark pages. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from edgewright.simulator.outcome import CurvePoint, Outcome

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 34, 44
GREY = "#808080"
CURVES = (("committed", "#2ca25f"), ("bearing", "#2b7bba"), ("failed", "#d95f0e"), ("reverted", "#8856a7"))
NAMES = {"committed": "committed", "bearing": "have it or are at it", "failed": "failed", "reverted": "went back"}


def completion(outcome: Outcome) -> str:
    """Return the picture: devices over seconds since the rollout began."""
    points = outcome.curve or (CurvePoint(seconds=0.0, committed=0, failed=0, bearing=0, reverted=0, connected=0),)
    end = max(points[-1].seconds, 1.0)
    title = f"{outcome.devices} devices, {outcome.waves} waves"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}"'
        f' font-family="sans-serif" font-size="11" fill="{GREY}">',
        f'<text x="{LEFT}" y="16" font-size="13" font-weight="bold">{title}</text>',
    ]
    for share in (0.0, 0.5, 1.0):
        y = _y(share * outcome.devices, outcome.devices)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{GREY}" stroke-opacity=".35"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{round(share * outcome.devices)}</text>')
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _x(share * end, end)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{share * end:.0f} s</text>')
    for place, (name, color) in enumerate(CURVES):
        line = " ".join(_steps(points, name, end, outcome.devices))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        x = LEFT + 145 * place
        parts.append(f'<path d="M{x} {HEIGHT - 10}h18" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 24}" y="{HEIGHT - 6}">{NAMES[name]}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _steps(points: Sequence[CurvePoint], name: str, end: float, devices: int) -> list[str]:
    return [f"{_x(one.seconds, end):.1f},{_y(getattr(one, name), devices):.1f}" for one in points]


def _x(seconds: float, end: float) -> float:
    return LEFT + seconds / end * (WIDTH - LEFT - RIGHT)


def _y(count: float, devices: int) -> float:
    return HEIGHT - BOTTOM - count / devices * (HEIGHT - TOP - BOTTOM)
