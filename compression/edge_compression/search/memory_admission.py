"""Memory: what building a candidate is expected to take, and a gate that lets builds in while there is room.

The estimate is for planning; the hard limit is the build process's own (`build`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from edge_contracts.limits import MIB

TOOLS_MB = 180.0
"""What a build process takes before it has seen a model: numpy, onnx, onnxruntime."""

COPIES, RUNS = 8.0, 3.0
"""Model files, and float models with their activations in an engine, that a pass holds at the same time at most: the
graph before and after, their bytes, the float weights beside the integers; a session that gives every activation out.
Measured over the corpus by `benchmarks/toolchain/corpus.py`, which notes estimate and peak of every build."""

DRIVER_MB = 450.0
"""The search itself with its samples, its study and the original's measuring process."""


def estimate_mb(model_bytes: int, engine_mb: float) -> float:
    """Return the megabytes a build is expected to take at its peak. `engine_mb` is what the original took to run."""
    return TOOLS_MB + COPIES * model_bytes / MIB + RUNS * engine_mb


class MemoryAdmission:
    """A gate with a number of megabytes behind it; each build waits until its own are free."""

    def __init__(self, total_mb: float) -> None:
        self._free = self._total = total_mb
        self._changed = threading.Condition()

    @contextmanager
    def room(self, wanted_mb: float) -> Iterator[None]:
        """Hold `wanted_mb` for the block; one that wants more than there is has all of it, alone."""
        taken = min(wanted_mb, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= taken)
            self._free -= taken
        try:
            yield
        finally:
            with self._changed:
                self._free += taken
                self._changed.notify_all()
