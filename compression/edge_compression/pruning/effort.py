"""How long the linear algebra of pruning takes: what running the model says nothing of. A convolution of a thousand
columns is inverted, updated once for each channel that goes, and solved again, whatever the engine's speed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

PROBE, WIDE, PROBES = 384, 1200, 5
"""Sides of the matrices by which this machine's speed is measured, one that fits a cache and one that does not, and how
often: milliseconds of processor time, which a busy machine does not make longer."""

SOLVES = 5
"""Systems solved for each layer that is refitted: one a ridge and the last one."""


@dataclass(frozen=True, kw_only=True)
class RefitLayer:
    """A layer that is refitted: its `rows` and `columns`, the `units` it reads of sites that are pruned, and the
    positions taken of one sample."""

    rows: int
    columns: int
    units: int
    positions: int


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Multiplications with addition, and bytes read or written, a second."""

    products: float
    bytes: float


def measured_speed() -> Speed:
    """Return this machine's speed by one thread."""
    matrix, wide = (np.random.default_rng(0).normal(size=(side, side)) for side in (PROBE, WIDE))
    products, updates = _cpu_seconds(lambda: matrix @ matrix), _cpu_seconds(lambda: wide - wide)
    return Speed(products=PROBE**3 / products, bytes=3 * wide.nbytes / updates)


def algebra_seconds(readings: Sequence[RefitLayer], samples: int, speed: Speed) -> float:
    """Return the seconds that sums, orders of removal and refits of these layers take."""
    return sum(_products(one, samples) / speed.products + _bytes(one) / speed.bytes for one in readings)


def _products(one: RefitLayer, samples: int) -> float:
    rows, columns = float(one.rows), float(one.columns)
    sums = 1.5 * samples * one.positions * columns * (columns + rows)  # half the samples to order, all to refit
    inverses = 2.0 * columns**3 + columns**2 * rows
    return sums + inverses + SOLVES * (columns**3 / 3.0 + columns**2 * rows)


def _bytes(one: RefitLayer) -> float:
    """Each unit that goes reads and writes the inverse, and weighs all rows anew."""
    return one.units * (3.0 * 8.0 * one.columns**2 + 4.0 * 8.0 * one.rows * one.columns)


def _cpu_seconds(action: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(PROBES):
        action()
    return max(time.process_time() - began, 1e-6) / PROBES
