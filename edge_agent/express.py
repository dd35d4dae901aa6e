"""The express lane: a request with nothing special about it, checked, run and checked again in one flat function.

Python's calls between small functions cost as much as a small model does. Here everything that can be known when a
rung is loaded is worked out then. Whatever is not usual (another dtype, a batch, a value out of range, a failing
engine) is left to the long way in `runtime` and `rungs`, which decides about it and says why; what the express lane
answers, the long way would have answered too, without a warning.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_agent.errors import EngineError, EngineMemoryError
from edge_agent.ports import Array, Session, Tensors
from edge_contracts.manifest import Input, InputGuard, Manifest, OutputGuard, Variant

_FEW = 32
_Within = Callable[[Array], bool]
_vdot, _lowest, _highest = np.vdot, np.minimum.reduce, np.maximum.reduce


class ExpressLane:
    """One loaded variant's express lane. Not thread-safe."""

    __slots__ = ("_inputs", "_outputs", "_run")

    def __init__(self, manifest: Manifest, session: Session, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        """`inputs` and `outputs` are the engine's names for the manifest's tensors, in its order."""
        self._run = session.run
        self._inputs = tuple(
            (tensor.name, name, np.dtype(tensor.dtype), _usual_shape(tensor), _within(tensor.guard, tensor.dtype))
            for tensor, name in zip(manifest.inputs, inputs, strict=True)
        )
        self._outputs = tuple(
            (tensor.name, name, _within(tensor.guard, tensor.dtype))
            for tensor, name in zip(manifest.outputs, outputs, strict=True)
        )

    def outputs(self, tensors: Tensors) -> dict[str, Array] | None:
        """Return the outputs by the manifest's names, or None for a request or an answer that is not usual.

        Raises EngineMemoryError: what runs again after one may be answered from a damaged heap.
        """
        if len(tensors) != len(self._inputs):
            return None
        feeds = {}
        for name, engine_name, dtype, shape, within in self._inputs:
            array = tensors.get(name)
            if type(array) is not np.ndarray or array.shape != shape or array.dtype != dtype or not within(array):
                return None
            feeds[engine_name] = array
        try:
            answer = self._run(feeds)
        except EngineMemoryError:
            raise
        except EngineError:
            return None
        outputs = {}
        for name, engine_name, within in self._outputs:
            array = answer[engine_name]
            if not within(array):
                return None
            outputs[name] = array
        return outputs


def express_lane(
    manifest: Manifest, variant: Variant, session: Session, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> ExpressLane | None:
    """Return the lane of a variant, or None where every request needs the long way: a mapping between the sample's
    dtype and the model's, or thresholds to judge each answer by."""
    confidence = variant.confidence
    if confidence.energy is not None or confidence.max_softmax is not None:
        return None
    if not all(_fed_as_it_is(tensor) for tensor in manifest.inputs):
        return None
    return ExpressLane(manifest, session, inputs, outputs)


def _fed_as_it_is(tensor: Input) -> bool:
    mapping = tensor.sample
    return mapping.dtype != tensor.dtype or (mapping.offset == 0.0 and mapping.scale == 1.0)


def _usual_shape(tensor: Input) -> tuple[int, ...]:
    return tuple(size if size != -1 else 1 for size in tensor.shape)


def _within(guard: InputGuard | OutputGuard, dtype: str) -> _Within:
    """Return the quickest check that a tensor is finite and within its guard's range."""
    low, high = guard.minimum, guard.maximum
    if low is None and high is None:
        return _finite if dtype[0] == "f" else _anything
    minimum, maximum = -math.inf if low is None else low, math.inf if high is None else high

    def within(array: Any) -> bool:
        flat = array.reshape(-1)
        # An infinity compares as within an open end, and a NaN as within nothing.
        return bool(minimum <= _lowest(flat) and _highest(flat) <= maximum) and _finite(array)

    return within


def _finite(array: Any) -> bool:
    """A sum is finite only where all its terms are; one that overflowed is left to the long way. Of few numbers, as
    most answers are, Python's own sum is the quickest; of many, a sum of squares."""
    return math.isfinite(sum(array.ravel().tolist()) if array.size <= _FEW else _vdot(array, array))


def _anything(_: Any) -> bool:
    return True
