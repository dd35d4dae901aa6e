"""A process that takes real memory, in a control group with a limit: what it holds is told where the kernel tells it.

    with Eater(board.sys) as eater: eater.leave(150.0)    # megabytes that the limit leaves

Only a few machines let a test make a control group, and what a machine has available changes with whatever else runs
on it. So the group's files are the test's, and the number in them is the process's resident memory by the kernel.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import psutil

MIB = 1024 * 1024
BLOCK_MB = 8
LIMIT_MB = 400.0
"""A piece of memory, and the limit of the group."""

PATIENCE_S = 60.0


class Eater:
    """See the module. `sys` stands for /sys."""

    def __init__(self, sys: Path) -> None:
        self._group = sys / "fs" / "cgroup"
        self._group.mkdir(parents=True, exist_ok=True)
        _write(self._group / "memory.current", 0.0)
        _write(self._group / "memory.max", LIMIT_MB)

    def leave(self, megabytes: float) -> None:
        """Take or give back memory until about this much is left, and keep it so."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{megabytes}\n".encode())
        self._process.stdin.flush()
        deadline = time.monotonic() + PATIENCE_S
        while abs(self.left_mb - megabytes) > BLOCK_MB:
            assert time.monotonic() < deadline, f"{self.left_mb:.0f} MB are left, not {megabytes:.0f}"
            time.sleep(0.05)

    @property
    def left_mb(self) -> float:
        """Return what the limit leaves, by the group's files."""
        return LIMIT_MB - int((self._group / "memory.current").read_text()) / MIB

    def __enter__(self) -> Self:
        self._process = subprocess.Popen([sys.executable, __file__, str(self._group)], stdin=subprocess.PIPE)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


class Wish:
    """What the test last asked for, read on a thread of its own; `over` when it asks no more."""

    def __init__(self) -> None:
        self.left_mb = LIMIT_MB
        self.over = False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            self.left_mb = float(line)
        self.over = True


def _write(file: Path, megabytes: float) -> None:
    """Write as the kernel does: whoever reads gets the old number or the new one."""
    draft = file.with_suffix(".new")
    draft.write_text(f"{int(megabytes * MIB)}\n")
    draft.replace(file)


def main() -> None:
    group, wish, held = Path(sys.argv[1]), Wish(), list[bytearray]()
    while not wish.over:
        resident_mb = psutil.Process().memory_info().rss / MIB
        _write(group / "memory.current", resident_mb)
        too_much = LIMIT_MB - resident_mb - wish.left_mb
        if too_much > BLOCK_MB / 2:
            held.append(bytearray(b"x") * (BLOCK_MB * MIB))
        elif too_much < -BLOCK_MB / 2 and held:
            held.pop()
        else:
            time.sleep(0.02)


if __name__ == "__main__":
    main()
