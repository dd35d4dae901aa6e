"""The seams of the agent: what the deciding code asks of the outside, each a Protocol of one or two verbs.

Real implementations are in `engines` and `adapters`; simulators for tests implement the same Protocols. Nothing here
imports numpy: arrays are named for type checkers only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from edge_contracts.codec import StrictRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_agent.answer import NodeAnswer

    Array = NDArray[np.generic]
    Tensors = Mapping[str, Array]
else:
    Array = Any
    Tensors = Mapping[str, Any]

ObjectKind = Literal["metadata", "target", "blob"]


class TensorInfo(StrictRecord, frozen=True, kw_only=True):
    """A model's input or output as its engine declares it; -1 is a dimension of any size."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class EngineSettings(StrictRecord, frozen=True, kw_only=True):
    """What may be set on an engine, and nothing else may: session options are an allow-list because some pairs of
    them crash the engine outright.

    `optimize` off runs the graph as written (the "exact" arithmetic of the file). `cache` is a folder for optimized
    models, keyed by engine version, CPU and digest; None means no cache.
    """

    threads: int = 1
    optimize: bool = True
    cache: Path | None = None


class Bound(Protocol):
    """A loaded model bound to buffers: `run` answers what stands in `inputs` into `outputs`. Not thread-safe."""

    @property
    def inputs(self) -> Sequence[Array]: ...

    @property
    def outputs(self) -> Sequence[Array]: ...

    def run(self) -> None:
        """Run once. Raises EngineError; EngineMemoryError when an allocation failed."""
        ...


class Session(Protocol):
    """A loaded model. Not thread-safe: one caller at a time."""

    @property
    def inputs(self) -> Sequence[TensorInfo]: ...

    @property
    def outputs(self) -> Sequence[TensorInfo]: ...

    def run(self, feeds: Tensors, *, shrink: bool = False) -> dict[str, Array]:
        """Return outputs by name; with `shrink` the engine gives back, where it can, the memory that only this run
        needed. Raises EngineError; EngineMemoryError when an allocation failed."""
        ...

    def bind(self, feeds: Tensors, answer: Tensors) -> Bound:
        """Return the model bound to buffers of its own, in the order of `feeds` and `answer`: the dtypes and shapes
        are theirs, and the inputs hold what `feeds` holds. It outlives `close` if it is kept. Raises EngineError."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Composite(Protocol):
    """A session made of several models; `nodes` tells what each of them did in the last run."""

    @property
    def nodes(self) -> tuple[NodeAnswer, ...]: ...

    def news(self) -> list[str]:
        """Return what failed inside a node since this was last asked."""
        ...


class Engine(Protocol):
    """Loads model files of one format."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def load(self, model: Path, settings: EngineSettings) -> Session:
        """Load a model file. Raises EngineError naming the file."""
        ...


class Transport(Protocol):
    """Brings pieces of the repository: over MQTT, HTTP or from a folder. It is never trusted."""

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        """Return at most `length` bytes at `offset`, and the whole object's size.

        Raises NotFoundError when the other side says it has no such object, RetryAfterError with its delay, and
        UnreachableError when nobody answered in time.
        """
        ...
