"""The states of models that remember: what a step's outputs hand to the next step of the same stream.

A stream is one source whose samples follow each other, such as a microphone. Its state lives here, in the process that
serves, and nowhere else: a swap, an idle hour or too many other streams end it, and its next step then starts anew and
says so. Counted are steps that started anew without being asked to, and streams that were dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from edge_agent.errors import TensorError
from edge_agent.inference.sample_runs import resting
from edge_agent.ports import Array, Tensors
from edge_contracts.limits import MIB
from edge_contracts.manifest import Manifest

Beginning = Literal["asked", "new", "lost"]


class StreamLimits(Struct, frozen=True, kw_only=True):
    """How much is kept: streams in number, bytes of their states together, and seconds without a step."""

    streams: int = 64
    size: int = 32 * MIB
    idle_s: float = 300.0


class StreamStep(Struct, frozen=True, kw_only=True):
    """Which stream a request is a step of. `start` forgets what was before it, `end` what is after it. A stream that is
    `implied`, by where a request came from, starts without being told to."""

    stream: str | int
    start: bool = False
    end: bool = False
    implied: bool = False


class _State(Struct):
    arrays: dict[str, Array]
    release: str
    size: int
    last: float


class StreamStates:
    """States by stream, least recently used first. Not thread-safe."""

    def __init__(self, manifest: Manifest, count: Callable[[str], None], limits: StreamLimits) -> None:
        """Keep nothing yet. `count` is told the names of counters."""
        self._fed_back = {tensor.name: tensor.feedback for tensor in manifest.inputs if tensor.feedback is not None}
        self._resting = {tensor.name: resting(tensor) for tensor in manifest.inputs if tensor.feedback is not None}
        self._count = count
        self._limits = limits
        self._states: OrderedDict[str | int, _State] = OrderedDict()
        self._size = 0

    @property
    def remembers(self) -> bool:
        """Whether the model has anything to remember."""
        return bool(self._fed_back)

    def __len__(self) -> int:
        return len(self._states)

    def fill_in(self, step: StreamStep, tensors: dict[str, Array], release: str, now: float) -> Beginning | None:
        """Put a stream's state among a request's tensors; return how it begins, None if it goes on. A state that
        another `release` left is not gone on from.

        Raises TensorError for a tensor that is the stream's own.
        """
        for name in self._fed_back:
            if name in tensors:
                raise TensorError("is kept for the stream: leave it out, or leave the stream out", subject=name)
        self._drop_idle(now)
        known = self._states.get(step.stream)
        if known is not None and (step.start or known.release != release):
            self._forget(step.stream)
        goes_on = known is not None and known.release == release and not step.start
        tensors.update(known.arrays if goes_on and known is not None else self._resting)
        if goes_on:
            return None
        if step.start:
            return "asked"
        if step.implied and known is None:
            return "new"
        self._count("streams_restarted")
        return "lost"

    def keep(self, step: StreamStep, outputs: dict[str, Array], release: str, now: float) -> None:
        """Remember what the next step of a stream is fed, and drop what is then too much."""
        self._forget(step.stream)
        if step.end:
            return
        arrays = {name: outputs[source] for name, source in self._fed_back.items()}
        state = _State(arrays, release, sum(array.nbytes for array in arrays.values()), now)
        self._states[step.stream] = state
        self._size += state.size
        while len(self._states) > self._limits.streams or (self._size > self._limits.size and len(self._states) > 1):
            self._drop(next(iter(self._states)))

    def without(self, tensors: Tensors) -> Tensors:
        """Return a request's tensors without those that are fed back."""
        return {name: array for name, array in tensors.items() if name not in self._fed_back}

    def forget(self, stream: str | int) -> None:
        """Forget a stream, if it is known."""
        self._forget(stream)

    def _drop_idle(self, now: float) -> None:
        while self._states:
            stream, state = next(iter(self._states.items()))
            if now - state.last < self._limits.idle_s:
                return
            self._drop(stream)

    def _drop(self, stream: str | int) -> None:
        self._count("streams_dropped")
        self._forget(stream)

    def _forget(self, stream: str | int) -> None:
        state = self._states.pop(stream, None)
        if state is not None:
            self._size -= state.size
