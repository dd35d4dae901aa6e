"""The express lane: a request with nothing special about it, checked, run and checked again in one flat function.

Python's calls between small functions cost as much as a small model does. Here everything that can be known when a rung
is loaded is worked out then, and requests go through buffers the engine is bound to. Whatever is not usual (a dtype
that is neither the sample's nor the model's, a batch, a value out of range, a failing engine) is left to the long way
in `runtime` and `rungs`, which decides about it and says why; what the express lane answers, the long way would have
answered too, without a warning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from edge_agent.errors import EngineError, EngineMemoryError
from edge_agent.inference.guards import as_held, features_in_order
from edge_agent.inference.rungs.quick_confidence import quick_confidence
from edge_agent.ports import Array, Bound, Session, Tensors
from edge_contracts.limits import KIB
from edge_contracts.manifest import Input, InputGuard, Manifest, Output, OutputGuard, SampleMapping, Variant
from edge_contracts.reference import Confidence

MAX_BYTES: Final = 64 * KIB
"""Tensors larger than this have no lane: copying them costs more than the long way."""

MAX_S: Final = 0.05
"""A model whose first run takes more of the CPU needs none: it would not show, and proving a lane costs another run."""

_Fill = Callable[[Array], None]
"""Puts an array of the sample's dtype into a buffer as the model is fed it, exactly as `samples.to_model` would."""

_Measure = Callable[[], Any]
"""Returns a number that is finite only where what a buffer holds is finite and within its guard's range."""

_ndarray, _isfinite, _sum = np.ndarray, math.isfinite, np.add.reduce
_vdot: Any = getattr(np.vdot, "_implementation", np.vdot)  # without its search for arrays of other libraries


class FastPath:
    """One loaded variant's express lane. Not thread-safe."""

    __slots__ = ("_inputs", "_outputs", "_run")

    def __init__(self, manifest: Manifest, bound: Bound, judges: Sequence[Callable[[], bool] | None]) -> None:
        """`bound` has the buffers of the manifest's tensors, in its order; `judges` say of each output whether it is
        within the variant's thresholds, None where nothing is asked of it."""
        self._run: Callable[[], None] | None = bound.run
        self._inputs = tuple(
            (tensor.name, buffer, buffer.shape, *_taken(tensor, buffer), _measure_input(tensor.guard, buffer))
            for tensor, buffer in zip(manifest.inputs, bound.inputs, strict=True)
        )
        self._outputs = tuple(
            (tensor.name, buffer.copy, _measure_output(tensor, buffer, judge), judge)
            for tensor, buffer, judge in zip(manifest.outputs, bound.outputs, judges, strict=True)
        )

    def outputs(self, tensors: Tensors) -> dict[str, Array] | None:
        """Return the outputs by the manifest's names, or None for a request or an answer that is not usual.

        Raises EngineMemoryError: what runs again after one may be answered from a damaged heap.
        """
        run = self._run
        if run is None or len(tensors) != len(self._inputs):
            return None
        for name, buffer, shape, dtype, sampled, fill, measure in self._inputs:
            array = tensors.get(name)
            if type(array) is not _ndarray or array.shape != shape:
                return None
            if fill is not None and array.dtype == sampled:
                fill(array)
            elif array.dtype == dtype or array.dtype == sampled:
                buffer[...] = array
            else:
                return None
            if not _isfinite(measure()):
                return None
        try:
            run()
        except EngineMemoryError:
            raise
        except EngineError:
            self._run = None  # an answer of another shape would fail each time: the long way takes all from here
            return None
        outputs = {}
        for name, copy, measure, within in self._outputs:
            if not _isfinite(measure()) or (within is not None and not within()):
                return None
            outputs[name] = copy()
        return outputs


def fast_path(
    manifest: Manifest, variant: Variant, session: Session, feeds: Tensors, answer: Tensors
) -> FastPath | None:
    """Return the lane for requests like `feeds`, proved on them to answer `answer`; both are by the engine's names, in
    the manifest's order.

    Return None where every request needs the long way: a sample that goes through steps or becomes whole numbers, a
    constant, thresholds to judge many rows or classes by, large tensors, an engine that cannot be bound, answers that
    differ from run to run. Raises EngineMemoryError.
    """
    if not all(map(_is_usual, manifest.inputs, feeds.values())):
        return None
    if not all(0 < array.nbytes <= MAX_BYTES for array in (*feeds.values(), *answer.values())):
        return None
    try:
        bound = session.bind(feeds, answer)
        bound.run()
    except EngineMemoryError:
        raise
    except EngineError:
        return None
    if not all(map(_are_equal, bound.outputs, answer.values())):
        return None
    judges = _judges(manifest, variant.confidence, bound)
    return None if judges is None else FastPath(manifest, bound, judges)


def _judges(manifest: Manifest, thresholds: Confidence, bound: Bound) -> list[Callable[[], bool] | None] | None:
    """Return what judges each output, None where one of them needs the long way."""
    if thresholds.energy is None and thresholds.max_softmax is None:
        return [None] * len(manifest.outputs)
    judged = zip(manifest.outputs, bound.outputs, strict=True)
    judges = [quick_confidence(thresholds, tensor.kind, buffer) for tensor, buffer in judged]
    return None if None in judges else judges


def _is_usual(tensor: Input, array: Array) -> bool:
    """Return whether the long way would feed an array like this one for a request of its shape."""
    shape = array.shape
    fits = len(shape) == len(tensor.shape) and all(map(_fits, shape, tensor.shape))
    takes_any = tensor.sample.dtype != tensor.dtype or _is_filled(tensor)
    return fits and takes_any and tensor.constant is None and array.dtype == tensor.dtype


def _is_filled(tensor: Input) -> bool:
    """Return whether samples can be mapped in the buffer, whose dtype is the one that the mapping is calculated in."""
    mapping = tensor.sample
    whole = np.dtype(np.float64 if np.dtype(mapping.dtype).itemsize > 4 else np.float32)
    is_number = np.dtype(tensor.dtype).kind == "f" and np.dtype(mapping.dtype).kind in "fiub"
    is_cast = mapping.offset == 0.0 and mapping.scale == 1.0
    return not mapping.steps and is_number and (is_cast or whole == tensor.dtype)


def _taken(tensor: Input, buffer: Any) -> tuple[np.dtype[Any], np.dtype[Any], _Fill | None]:
    """Return the dtype that is fed as it is and that of a sample, with what maps it; None: a cast does."""
    if not _is_filled(tensor):
        return buffer.dtype, buffer.dtype, None
    mapping = tensor.sample
    is_cast = mapping.offset == 0.0 and mapping.scale == 1.0
    return buffer.dtype, np.dtype(mapping.dtype), None if is_cast else _fill(mapping, buffer)


def _fill(mapping: SampleMapping, buffer: Any) -> _Fill:
    offset, scale = buffer.dtype.type(mapping.offset), buffer.dtype.type(mapping.scale)
    subtract, multiply = np.subtract, np.multiply

    def fill(array: Array) -> None:
        buffer[...] = array
        if offset:
            subtract(buffer, offset, buffer)
        multiply(buffer, scale, buffer)

    return fill


def _fits(size: int, declared: int) -> bool:
    return declared in (-1, size)


def _are_equal(one: Array, other: Array) -> bool:
    return one.tobytes() == other.tobytes()


def _measure(guard: InputGuard | OutputGuard, buffer: Any) -> _Measure:
    """Return the quickest such measure of a buffer; those of one call into NumPy cost no call of Python's beside it."""
    guard = as_held(guard, buffer.dtype)
    flat, low, high = buffer.reshape(-1), guard.minimum, guard.maximum
    if low is None and high is None:
        return _finite(flat)
    minimum, maximum = -math.inf if low is None else low, math.inf if high is None else high
    # An infinity compares as within an open end, and a NaN, which is found first, as within nothing.
    within = _finite(flat) if math.inf in (-minimum, maximum) else float
    lowest, highest, at = flat.argmin, flat.argmax, flat.item  # a third of the time of `numpy.minimum.reduce`

    def measure() -> Any:
        return within() if minimum <= at(lowest()) and at(highest()) <= maximum else math.nan

    return measure


def _measure_output(tensor: Output, buffer: Any, judge: Callable[[], bool] | None) -> _Measure:
    bounded = tensor.guard.minimum is not None or tensor.guard.maximum is not None
    sees_all = judge is not None and tensor.kind == "logits" and not bounded  # then it sees what is not finite, too
    return float if sees_all else _measure(tensor.guard, buffer)


def _measure_input(guard: InputGuard, buffer: Any) -> _Measure:
    whole, in_order = _measure(guard, buffer), features_in_order(guard, buffer.shape, buffer.dtype)
    if in_order is None:
        return whole

    def measure() -> Any:
        return whole() if in_order(buffer) else math.nan

    return measure


def _finite(flat: Any) -> _Measure:
    """A sum is finite only where all its terms are; one that overflowed is left to the long way."""
    if flat.dtype.kind != "f":
        return float  # which is zero
    # The quickest sum is one of squares, and `vdot` says nothing when it overflows; those of float16 do so too soon.
    return partial(_sum, flat, 0, np.float64) if flat.itemsize == 2 else partial(_vdot, flat, flat)
