"""What a process of ours writes to standard error: passed on to the agent's own, and remembered line by line.

Without a task: the event loop calls when there is something, and what a process wrote before it died is still in the
pipe when its death is heard of.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any

from edge_agent.supervisor.child_process import start_child

READ_BYTES = 64 * 1024
MAX_READS = 32
"""Reads at the end of a process: 2 MiB, more than a pipe holds, and an end where a grandchild goes on writing."""

MAX_PARTIAL_BYTES = 4096
"""A line without an end is taken as it is beyond this many bytes."""

_STDERR = 2


class ProcessOutput:
    """One process's standard error. Give `child_end` to the process, then `begin`, and `end` when it has ended."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._ours, self.child_end = os.pipe()
        os.set_blocking(self._ours, False)
        self._partial = b""
        self._open = True

    def begin(self) -> None:
        """The process has its end: close ours of it, and read whenever there is something."""
        os.close(self.child_end)
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    def cancel(self) -> None:
        """No process could be started."""
        os.close(self.child_end)
        self._close()

    def end(self) -> None:
        """The process has ended: take in what it still had to say."""
        for _ in range(MAX_READS):
            if not self._open or not self._read():
                break
        self._close()

    def _read(self) -> bool:
        """Take in what is there; return whether there was something."""
        try:
            data = os.read(self._ours, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._close()
            return False
        with contextlib.suppress(OSError):
            os.write(_STDERR, data)
        *whole, rest = (self._partial + data).split(b"\n")
        if len(rest) > MAX_PARTIAL_BYTES:
            whole, rest = [*whole, rest], b""
        self._partial = rest
        for line in whole[-64:]:
            self._take(line[:MAX_PARTIAL_BYTES].decode("utf-8", "replace"))
        return True

    def _close(self) -> None:
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)
        if self._partial:
            self._take(self._partial.decode("utf-8", "replace"))


async def start_heard(
    take: Callable[[str], None], *words: str, **options: Any
) -> tuple[asyncio.subprocess.Process, ProcessOutput]:
    """Start a child as `start_child` does, with each line of its standard error given to `take`. Call `end` of the
    output once it has ended. Raises OSError."""
    output = ProcessOutput(take)
    try:
        process = await start_child(*words, stderr=output.child_end, **options)
    except BaseException:
        output.cancel()
        raise
    output.begin()
    return process, output
