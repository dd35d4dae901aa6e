"""How much an output may lose and in which unit: points of a metric, percent of the original's own error, decibels, or
a relative error against the original's answers. Pure.

An error's own unit says nothing: 0.005 is nothing in watts and everything in megawatts. So a limit of an error is
relative, unless the task gives a number with its unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_agent.inference.quality_metrics import decibels
from edge_bench.metrics.registry import Metric
from edge_bench.task_format import Allowance
from edge_bench.task_samples import JudgedOutput
from edge_contracts.errors import ContractError

Value = TypeVar("Value", float, NDArray[Any])

POINTS, PERCENT, DECIBELS, FIDELITY_DB = 0.5, 5.0, 0.5, 25.0
"""What may be lost where nobody says: points of a metric, percent of an error, decibels, and the signal-to-noise ratio
against the original's answers."""

UNNAMED = 10.0
"""Percent of relative error of an output that the task does not name, 20 dB: enough to tell a ruined one."""

UNNAMED_CLASSES = 5.0
"""Percent of the whole numbers of such an output that may differ."""

TINY = 1e-9
"""Share of the truth's size below which the original's own error is none to compare with."""


@dataclass(frozen=True, kw_only=True)
class OutputLimit:
    """What an output may lose: `value` in `unit`. `absolute`: in the answers' own unit. `scale` is what stands for the
    original's own error where that is none: the size of what is true."""

    value: float
    unit: str
    absolute: bool = False
    relative: bool = False
    scale: float = 1.0
    exact: bool = False

    def shown(self, error: float) -> float:
        """Return a relative error as people know it: decibels, or the share that is equal."""
        return 1.0 - error if self.exact else decibels(error)


def default_limit(metric: Metric) -> float:
    """Return what may be lost where neither the task nor the caller says."""
    table = {"points": POINTS, "percent": PERCENT, "decibels": DECIBELS, "fidelity": _from_db(FIDELITY_DB)}
    return table[metric.unit]


def plain_limit(metric: Metric, value: float) -> OutputLimit:
    """Return a limit in the metric's usual unit."""
    units = {"points": "points", "percent": "%", "decibels": "dB", "fidelity": "%"}
    return OutputLimit(value=value, unit=units[metric.unit])


def output_limit(spec: JudgedOutput | None, metric: Metric, asked: Allowance | None, original: Any) -> OutputLimit:
    """Return the limit of one output: its own, else the caller's, else the usual one. `original` are the original's
    answers. Raises ContractError for a unit that the metric does not have."""
    whole = isinstance(original, np.ndarray) and original.dtype.kind != "f"
    if spec is None:
        return OutputLimit(value=UNNAMED_CLASSES if whole else UNNAMED, unit="%", exact=whole)
    given = spec.max_drop or (asked if asked is not None and asked.unit in _FITS.get(metric.unit, ()) else None)
    scale = _size(spec.truth)
    usual = plain_limit(metric, default_limit(metric))
    if metric.unit == "fidelity":
        value = _fidelity(spec.max_drop or (asked if asked is not None and asked.unit == "dB" else None))
        chosen = value if value is not None else UNNAMED_CLASSES if whole else usual.value
        return OutputLimit(value=chosen, unit="%", exact=whole)
    if given is None:
        return OutputLimit(value=usual.value, unit=usual.unit, scale=scale)
    _check_unit(given, metric, spec)
    absolute = bool(spec.unit) and given is spec.max_drop
    relative = given.unit == "%" and ".py:" in metric.name
    unit = spec.unit if absolute else "%" if relative else usual.unit
    return OutputLimit(value=given.value, unit=unit, absolute=absolute, relative=relative, scale=scale)


def as_loss(metric: Metric, limit: OutputLimit, before: Value, after: Value) -> Value:
    """Return what is lost from one score to another, in the limit's unit; of arrays element by element."""
    lost = metric.better * (before - after)
    if limit.absolute or metric.unit == "decibels":
        return lost
    if metric.unit == "fidelity":
        return 100.0 * after
    if metric.unit == "percent" or limit.relative:
        return 100.0 * lost / np.maximum(np.abs(before), TINY * limit.scale)
    return 100.0 * lost


def _fidelity(given: Allowance | None) -> float | None:
    """Return the largest relative error in percent; a plain number is one of decibels, as people give fidelity."""
    if given is None:
        return None
    return given.value if given.unit == "%" else _from_db(given.value)


def _from_db(value: float) -> float:
    return float(100.0 * 10.0 ** (-value / 20.0))


_FITS = {"points": ("", "%", "points"), "percent": ("", "%"), "decibels": ("", "dB")}


def _check_unit(given: Allowance, metric: Metric, spec: JudgedOutput) -> None:
    fits = _FITS[metric.unit]
    if given.unit not in fits:
        what = f"{metric.name} has limits in {fits[-1]}, not in {given.unit}"
        raise ContractError(what, subject=f"{spec.subject}.max_drop")


def _size(truth: Any) -> float:
    if not isinstance(truth, np.ndarray) or truth.dtype.kind not in "iuf" or not truth.size:
        return 1.0
    return float(np.abs(truth.astype(np.float64)).mean()) or 1.0
