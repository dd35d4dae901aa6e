"""A process that takes real memory so that the machine has as much available as the test says, whatever others do.

with Eater() as eater: eater.leave(4000.0)    # megabytes; skips the test where it cannot be brought about
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Self

import psutil
import pytest

MIB = 1024 * 1024
BLOCK_MB = 8
MOST_MB = 304
"""A piece of memory, and how much the process takes at most."""

CLOSE_MB = 2 * BLOCK_MB


def available_mb() -> float:
    return psutil.virtual_memory().available / MIB


class Eater:
    """See the module."""

    def leave(self, megabytes: float) -> None:
        """Take or give back memory until about this much is available, and keep it so."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{megabytes}\n".encode())
        self._process.stdin.flush()
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            if abs(available_mb() - megabytes) <= CLOSE_MB:
                return
            time.sleep(0.05)
        pytest.skip(f"others on this machine take or give back too much memory: {available_mb():.0f} MB available")

    def __enter__(self) -> Self:
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


class Wish:
    """What the test last asked for, read on a thread of its own; `over` when it asks no more."""

    def __init__(self) -> None:
        self.available_mb = float("inf")
        self.over = False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            self.available_mb = float(line)
        self.over = True


def main() -> None:
    wish, held = Wish(), list[bytes]()
    while not wish.over:
        too_much = available_mb() - wish.available_mb
        if too_much > BLOCK_MB / 2 and len(held) * BLOCK_MB < MOST_MB:
            held.append(b"x" * (BLOCK_MB * MIB))
        elif too_much < -BLOCK_MB / 2 and held:
            held.pop()
        else:
            time.sleep(0.02)


if __name__ == "__main__":
    main()
