"""Which process gets the CPU first, while a worker loads beside one that serves.

Who may not raise a priority again (setpriority(2) asks for CAP_SYS_NICE, or RLIMIT_NICE as systemd's `LimitNICE=` sets
it) must not lower one either: the worker would keep it for good.
"""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path
from typing import Final

BEHIND: Final = 5
"""How much nicer a worker loads than another one serves: a third of the CPU where both want it."""

_CAP_SYS_NICE: Final = 1 << 23


def step_behind(pid: int) -> None:
    """Let a process wait for others until `step_up`; without effect where that could not be undone."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    if _may_return_to(own):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, own + BEHIND)


def step_up(pid: int) -> None:
    """Let a process, with all its threads, have the CPU like this one."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(OSError):  # it has ended, or was never behind
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), own)


def _may_return_to(nice: int) -> bool:
    limit, _ = resource.getrlimit(resource.RLIMIT_NICE)
    return limit == resource.RLIM_INFINITY or limit >= 20 - nice or bool(_capabilities() & _CAP_SYS_NICE)


def _capabilities() -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0
