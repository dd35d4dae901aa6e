"""Which process gets the CPU first, while a worker loads beside one that serves.

Two things decide it (sched(7)). Within a control group, the nice value: who may not raise it again (setpriority(2) asks
for CAP_SYS_NICE, or RLIMIT_NICE as systemd's `LimitNICE=` sets it) must not lower it either, or the worker would keep
it for good. Where the kernel shares the CPU among sessions ("autogroup"), the session's: a worker has one of its own,
and anybody may set and reset it.
"""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path
from typing import Final

BEHIND: Final = 5
"""How much nicer a worker loads than another one serves: a quarter of the CPU where both want it."""

_CAP_SYS_NICE: Final = 1 << 23


def step_behind(pid: int) -> None:
    """Let a process wait for others until `step_up`; without effect where that could not be undone."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    if _may_return_to(own):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, own + BEHIND)
    _weigh_session(pid, BEHIND)


def step_up(pid: int) -> bool:
    """Let a process, with all its threads, have the CPU like this one; return False where the kernel says to try again
    a tenth of a second later."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(OSError):  # it has ended, or was never behind
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), own)
    return _weigh_session(pid, 0)


def _weigh_session(pid: int, nice: int) -> bool:
    try:
        if os.getsid(pid) == pid:
            Path(f"/proc/{pid}/autogroup").write_text(str(nice), encoding="ascii")
    except BlockingIOError:
        return False
    except OSError:  # a kernel without, or the process has ended
        pass
    return True


def _may_return_to(nice: int) -> bool:
    limit, _ = resource.getrlimit(resource.RLIMIT_NICE)
    return limit == resource.RLIM_INFINITY or limit >= 20 - nice or bool(_capabilities() & _CAP_SYS_NICE)


def _capabilities() -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0
