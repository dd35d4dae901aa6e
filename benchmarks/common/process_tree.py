"""What a process and everything it started have used, read from /proc."""

from __future__ import annotations

import psutil


def tree(pid: int) -> list[psutil.Process]:
    """Return the process and all its descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of the whole tree so far, with those of children that have ended and were waited for."""
    total = 0.0
    for process in tree(pid):
        try:
            total += sum(process.cpu_times()[:4])  # user, system, and both of the children waited for
        except psutil.NoSuchProcess:
            continue
    return total


def memory_mb(pid: int) -> dict[str, float]:
    """Return the tree's resident (`rss`) and proportional (`pss`) memory in megabytes of 2^20 bytes."""
    full = [process.memory_full_info() for process in tree(pid)]
    return {"rss": sum(info.rss for info in full) / 2**20, "pss": sum(info.pss for info in full) / 2**20}
