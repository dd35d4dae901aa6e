"""Measuring what an input's guard asks of a tensor, and doing what it says; the decisions are in `core.guards`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np

from edge_agent.inference.guard_policy import PASS, GuardVerdict, Spread, judge_feature, judge_input
from edge_agent.ports import Array
from edge_contracts.guards import FeatureGuard, InputGuard, OutputGuard
from edge_contracts.tensors import Input, Output

G = TypeVar("G", bound=FeatureGuard | InputGuard | OutputGuard)

_Where = tuple[Any, ...]
"""An index that gives one feature of a tensor."""


class InputGuards:
    """One input's guard, with what it asks of each request worked out beforehand."""

    __slots__ = ("_features", "_guard", "_in_order", "_is_bounded")

    def __init__(self, tensor: Input) -> None:
        dtype = np.dtype(tensor.dtype)
        guard = self._guard = as_held(tensor.guard, dtype)
        self._is_bounded = guard.minimum is not None or guard.maximum is not None
        axis = _axis(guard, tensor.shape)
        self._features = [(as_held(one, dtype), _where(axis, one), _categories(one, dtype)) for one in guard.features]
        self._in_order = features_in_order(guard, tensor.shape, dtype)

    def judge(self, feed: Array) -> tuple[Array, list[GuardVerdict]]:
        """Return a tensor as it may be fed, clipped where the guard says so, and the verdicts that object to it."""
        objections: list[GuardVerdict] = []
        if self._is_bounded or not is_finite(feed):
            verdict = judge_input(self._guard, spread(feed))
            if verdict.action == "clip":
                feed = _clip(feed, self._guard.minimum, self._guard.maximum)
            if verdict is not PASS:
                objections.append(verdict)
        if self._in_order is not None and not self._in_order(feed):
            feed, more = self._judge_features(feed)
            objections += more
        return feed, objections

    def _judge_features(self, feed: Array) -> tuple[Array, list[GuardVerdict]]:
        objections: list[GuardVerdict] = []
        for guard, where, categories in self._features:
            values: Any = feed[where]
            verdict = judge_feature(guard, _spread_of_numbers(values), _unknown(values, categories))
            if verdict.action == "clip":
                feed = feed.copy()
                feed[where] = _clip(values, guard.minimum, guard.maximum)
            if verdict is not PASS:
                objections.append(verdict)
        return feed, objections


def features_in_order(guard: InputGuard, shape: Sequence[int], dtype: np.dtype[Any]) -> Callable[[Any], bool] | None:
    """Return what says whether a guard has nothing against any feature of a tensor, None where none is guarded.

    It is for the many requests that are in order: all ranges are one comparison each way. A NaN is within each range.
    """
    if not guard.features:
        return None
    axis = _axis(guard, shape)
    held = dtype if dtype.kind == "f" else np.dtype(np.float64)
    lows, highs = np.full(shape[axis], -math.inf, held), np.full(shape[axis], math.inf, held)
    for one in guard.features:
        lows[one.index] = -math.inf if one.minimum is None else one.minimum
        highs[one.index] = math.inf if one.maximum is None else one.maximum
    behind = [1] * (len(shape) - axis - 1)
    lows, highs = lows.reshape(-1, *behind), highs.reshape(-1, *behind)
    known = [(_where(axis, one), _categories(one, dtype)) for one in guard.features if one.categories]

    def in_order(feed: Any) -> bool:
        if np.count_nonzero(feed < lows) or np.count_nonzero(feed > highs):
            return False
        return all(categories.issuperset(feed[where].ravel().tolist()) for where, categories in known)

    return in_order


def as_held(guard: G, dtype: np.dtype[Any]) -> G:
    """Return a guard whose bounds are as a tensor holds them: 0.1 is another number in float32."""
    if dtype.kind != "f":
        return guard
    bounds = {"minimum": guard.minimum, "maximum": guard.maximum}
    held = {name: float(np.asarray(bound, dtype)) for name, bound in bounds.items() if bound is not None}
    return msgspec.structs.replace(guard, **held)


def spread(array: Array) -> Spread:
    """Return the smallest and largest element; both are NaN where the array holds one."""
    values: Any = array
    return Spread(minimum=float(values.min()), maximum=float(values.max()))


def may_be_infinite(output: Output, answers: Array) -> Output:
    """Return an output's record with what its answers show: which infinite numbers are among them."""
    if answers.dtype.kind != "f":
        return output
    values: Any = answers
    low, high = bool((values == -math.inf).any()), bool((values == math.inf).any())
    if not (low or high):
        return output
    return msgspec.structs.replace(output, infinite="both" if low and high else "-inf" if low else "inf")


def is_finite(array: Array) -> bool:
    """Return whether an array holds neither NaN nor infinity; integers never do.

    The sum of squares is finite only then, and costs a fifth of looking for the extremes; where it overflowed they are
    looked for after all.
    """
    if array.dtype.kind != "f":
        return True
    values: Any = array
    return math.isfinite(np.vdot(values, values)) or spread(array).finite


def _spread_of_numbers(values: Any) -> Spread:
    """Return the smallest and largest element that is a number; NaN where there is none."""
    return Spread(minimum=float(np.fmin.reduce(values, None)), maximum=float(np.fmax.reduce(values, None)))


def _unknown(values: Any, categories: frozenset[float]) -> float | None:
    """Return an element that is none of the categories; None if there is none."""
    return next((one for one in values.ravel().tolist() if one not in categories), None) if categories else None


def _axis(guard: InputGuard, shape: Sequence[int]) -> int:
    return guard.axis % max(len(shape), 1)


def _where(axis: int, guard: FeatureGuard) -> _Where:
    return (*[slice(None)] * axis, guard.index)


def _categories(guard: FeatureGuard, dtype: np.dtype[Any]) -> frozenset[float]:
    """Return the categories as a tensor holds them."""
    if dtype.kind != "f":
        return frozenset(guard.categories)
    return frozenset(np.asarray(guard.categories, dtype).tolist())


def _clip(array: Array, low: float | None, high: float | None) -> Array:
    if array.dtype.kind == "f":
        middle = 0.0 if low is None or high is None else (low + high) / 2
        array = np.nan_to_num(array, nan=middle, posinf=high, neginf=low)
    clipped: Array = np.clip(array, low, high).astype(array.dtype, copy=False)
    return clipped
