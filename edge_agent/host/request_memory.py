"""What requests of a loaded model cost in memory: measured when it is loaded, and asked before a large one runs.

A batch that does not fit is its client's error; without this it would be a failed allocation inside the engine, which
ends the process. A request counts by the bytes of the tensors that the model is fed, because the memory of a run grows
with them: exactly so along the batch, less surely along other dimensions of any size.
"""

from __future__ import annotations

import contextlib
import gc
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from edge_agent.errors import RequestMemoryError
from edge_agent.host.control_groups import ControlGroups
from edge_agent.host.memory_limits import read_status_mb
from edge_agent.host.sensors import memory_available_mb
from edge_contracts.limits import MIB

EASY_MB: Final = 4.0
"""A request that needs less is not asked about."""

MARGIN: Final = 2.0
"""How much more than measured a run may take: the engine's arena grows by powers of two."""

KEPT_MB: Final = 16.0
"""What is left to everything else: answers, other connections, the interpreter."""

GROWTH_MB: Final = 16.0
"""What a process grows by after its model has been loaded: threads and their stacks, caches, connections."""

BODY_SHARE: Final = 2.0
"""Memory of a request's own bytes, relative to them: those of the one before may not be free yet."""

_PEAK_RESET: Final = Path("/proc/self/clear_refs")


class SizeWatcher(Protocol):
    """Told of each large request, so that a process that dies of one leaves its size behind; see `ipc.in_flight`."""

    def begin_large(self, size: int) -> None: ...

    def end_large(self, proved: int) -> None: ...


class RequestMemory:
    """One loaded model's. `proved` is the most bytes that a request had which was answered; `limit` is the size that
    has ended a worker before, or None. What does not fit into the memory that was left when the model had been loaded
    never will; what does, and finds less now, may come again."""

    def __init__(self, watcher: SizeWatcher | None = None, limit: int | None = None) -> None:
        self.proved = 0
        self._watcher = watcher
        self._limit = limit
        self._left_at_load: float | None = None
        self._per_byte = 0.0  # bytes of memory for each byte of tensors; 0: not known

    def learn(self, size: int, before: int, peak_mb: float) -> None:
        """Learn from a run of `size` bytes after one of `before`, which took `peak_mb` megabytes more, when the model
        is loaded."""
        self._left_at_load = growth_left_mb()
        self.proved = max(self.proved, size)
        if size > before:
            self._per_byte = max(self._per_byte, peak_mb * MIB / (size - before))

    def needs_mb(self, size: int) -> float:
        """Return the megabytes that a request of `size` bytes is reckoned to need; 0.0 where that is not known."""
        return self._per_byte * size * MARGIN / MIB

    def begin(self, size: int, rows: int) -> bool:
        """Look at a request of `size` bytes in `rows` rows before it runs; return whether `end` is to be called.

        Raises RequestMemoryError for one that never fits, and MemoryError for one that does not fit now.
        """
        needs = self.needs_mb(size)
        if size <= self.proved and needs < EASY_MB:
            return False
        if self._limit is not None and size >= self._limit:
            self._refuse(size, rows, self._limit / MIB, "a request of that size has ended a worker before")
        if needs >= EASY_MB:
            self._check(size, rows, needs)
        if self._watcher is not None:
            self._watcher.begin_large(size)
        return True

    def end(self, size: int) -> None:
        """A request of `size` bytes that was looked at has been answered."""
        self.proved = max(self.proved, size)
        self.leave()

    def leave(self) -> None:
        """A request that was looked at is over, answered or not."""
        if self._watcher is not None:
            self._watcher.end_large(self.proved)

    def _check(self, size: int, rows: int, needs: float) -> None:
        first, now = self._left_at_load, growth_left_mb()
        whole = needs + BODY_SHARE * size / MIB
        left = None if first is None else max(first - KEPT_MB - GROWTH_MB, 0.0)
        if left is not None and whole > left and size > self.proved:
            text = f"it needs about {whole:.0f} MB of memory, {left:.0f} MB are left for requests"
            self._refuse(size, rows, left / whole * size / MIB, text)
        if now is not None and needs > now - KEPT_MB:
            gc.collect()  # requests that failed may wait for it, with all they hold
            now = growth_left_mb() or 0.0
        if now is not None and needs > now - KEPT_MB:
            raise MemoryError(f"{needs:.0f} MB needed, {now:.0f} MB left")

    def _refuse(self, size: int, rows: int, fits_mb: float, why: str) -> None:
        most = int(rows * fits_mb * MIB / size) if rows > 1 else 0
        hint = f"; send at most {most} rows at once" if most else ""
        raise RequestMemoryError(f"{rows} rows of {size / MIB:.1f} MiB together: {why}{hint}", subject="request")


def growth_left_mb() -> float | None:
    """Return the megabytes by which this process may still grow: what its own cap, its control groups and the box
    leave; None where nothing tells."""
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    group = ControlGroups().memory()
    found = [
        None if soft == resource.RLIM_INFINITY else soft / MIB - read_status_mb("VmData"),
        None if group is None else group.left_mb,
        memory_available_mb(),
    ]
    return min((one for one in found if one is not None), default=None)


def peak_of(run: Callable[[], object]) -> float:
    """Run something; return by how many megabytes more memory was resident at its peak than before."""
    with contextlib.suppress(OSError):  # then the peak is the process's: a smaller one in between does not show
        _PEAK_RESET.write_text("5", encoding="ascii")
    before = read_status_mb("VmRSS")
    run()
    return max(0.0, read_status_mb("VmHWM") - before)
