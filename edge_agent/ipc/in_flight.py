"""Requests in flight, counted in memory that outlives the worker: 64-bit counters on one shared page.

The worker counts up what it starts and what it finishes; the supervisor reads the difference after the worker is
gone, whatever killed it. One worker writes a page, so no lock is needed: each counter is one aligned 8-byte store.
A request counts from the moment its head was read. One whose bytes the worker had not read yet is known only by its
connection, so open connections are counted as well: each can have cost one request more, and none can cost two.

The sizes of requests stand there too, in bytes of their tensors: of the large one that runs now, and of the largest
that was answered. So it is known of a worker that died of memory whether it died of a request like none before it.
"""

from __future__ import annotations

import mmap
import os

_PAGE_BYTES = 4096
_STARTED, _FINISHED, _CONNECTIONS, _RUNNING, _PROVED = range(5)


class InFlightCounters:
    """The shared counters. `create` on the supervisor's side, `open` with the inherited descriptor in the worker."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, _PAGE_BYTES)
        self._counters = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls) -> InFlightCounters:
        """Return a new page of zeros; pass its `fd` to the worker (`pass_fds`)."""
        fd = os.memfd_create("edgewright-flight", 0)
        os.ftruncate(fd, _PAGE_BYTES)
        return cls(fd)

    @classmethod
    def open(cls, fd: int) -> InFlightCounters:
        """Return the page behind an inherited descriptor."""
        return cls(fd)

    def start(self) -> None:
        """Count a request whose head was read."""
        self._counters[_STARTED] += 1

    def finish(self) -> None:
        """Count a request whose answer was handed to the kernel, or whose client went away."""
        self._counters[_FINISHED] += 1

    def connect(self) -> None:
        """Count a client's connection."""
        self._counters[_CONNECTIONS] += 1

    def disconnect(self) -> None:
        """A connection has ended."""
        self._counters[_CONNECTIONS] -= 1

    @property
    def connections(self) -> int:
        """Connections open now; of a dead worker: the most requests that can have been lost with it."""
        return self._counters[_CONNECTIONS]

    @property
    def started(self) -> int:
        return self._counters[_STARTED]

    @property
    def in_flight(self) -> int:
        """Requests started and not finished; of a dead worker: requests surely lost with it."""
        return self._counters[_STARTED] - self._counters[_FINISHED]

    def begin_large(self, size: int) -> None:
        """A large request of `size` bytes begins to run."""
        self._counters[_RUNNING] = size

    def end_large(self, proved: int) -> None:
        """It is over; the largest that was answered had `proved` bytes."""
        self._counters[_RUNNING] = 0
        self._counters[_PROVED] = proved

    @property
    def running_bytes(self) -> int:
        """Bytes of the large request that runs now, 0 if none does; of a dead worker: of the one it died in."""
        return self._counters[_RUNNING]

    @property
    def proved_bytes(self) -> int:
        """Bytes of the largest request that was answered, of those that count as large."""
        return self._counters[_PROVED]

    def close(self) -> None:
        """Give the memory and the descriptor back."""
        self._counters.release()
        self._map.close()
        os.close(self.fd)
