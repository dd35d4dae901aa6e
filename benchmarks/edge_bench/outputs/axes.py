"""Axes of charts as coordinates: pure arithmetic, no markup."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A mark on an axis: its place in SVG units and what is written there."""

    at: float
    text: str


class Axis:
    """A scale from values to SVG units: linear, or by logarithms, which takes positive values only."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool = False) -> None:
        self._log = log
        self._low, self._start = self._scaled(low), start
        self._factor = (end - start) / ((self._scaled(high) - self._low) or 1.0)

    def __call__(self, value: float) -> float:
        return round(self._start + (self._scaled(value) - self._low) * self._factor, 1)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self._log else value


def ticks(low: float, high: float, *, wanted: int = 6, least: float = 0.0) -> list[float]:
    """Return round values between two others: multiples of 1, 2 or 5 times a power of ten, at least `least` apart."""
    span = high - low
    if span <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= wanted)
    step = max(step, least)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten between two positive values; powers alone where that is too many, and
    linear ticks where it is too few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    if len(found) > 9:
        return [value for value in found if abs(math.log10(value) - round(math.log10(value))) < 1e-9]
    return found if len(found) >= 2 else [value for value in ticks(low, high, wanted=4) if value > 0]
