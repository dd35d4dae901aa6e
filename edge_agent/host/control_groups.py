"""What the control groups around this process leave it: memory, CPU, tasks. Version 1, version 2 and both at once.

A limit counts wherever it is set: at the process's own group or at any group around it that can be seen, and the
tightest one counts. What is not limited is None; it is never the box's figure, which `edge_agent.host.sensors` reads.
Sources: the kernel's cgroup-v2.rst and cgroup-v1/{memory,pids}.rst, scheduler/sched-bwc.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

MIB = 1024 * 1024
_NO_LIMIT = 1 << 60
"""Version 1 says "no limit" with the largest number of whole pages there is."""


class MemoryLimit(Struct, frozen=True, kw_only=True):
    """The limit that leaves least, in megabytes: `name` is the file that sets it, `group` the folder it is in."""

    left_mb: float
    limit_mb: float
    name: str
    group: str


class ControlGroups:
    """The groups of this process, found once: below `sys`/fs/cgroup, and below /sys where that is another place, as in
    a container that has the host's /sys mounted beside its own."""

    def __init__(self, sys: Path = Path("/sys"), proc: Path = Path("/proc")) -> None:
        roots = [f"{place}/fs/cgroup" for place in dict.fromkeys((str(sys), "/sys"))]
        lines = (_text(f"{proc}/self/cgroup") or "").splitlines()
        self._memory, self._cpu, self._tasks = (
            list(dict.fromkeys(folder for root in roots for folder in _folders(root, controller, lines)))
            for controller in ("memory", "cpu", "pids")
        )

    def memory(self) -> MemoryLimit | None:
        """Return the memory limit that leaves least, or None without any. Page cache that has not been used of late
        counts as free: it goes before anything is refused."""
        found = [limit for folder in self._memory if (limit := _memory_of(folder)) is not None]
        return min(found, key=lambda limit: limit.left_mb, default=None)

    def cpus(self) -> float:
        """Return how many CPUs this process may use: those it may run on, or what a quota gives it of them."""
        quotas = [quota for folder in self._cpu if (quota := _quota_of(folder)) is not None]
        return min([float(len(os.sched_getaffinity(0)) or 1), *quotas])

    def tasks_left(self) -> int | None:
        """Return how many processes and threads may still be started, or None without a limit."""
        found = [left for folder in self._tasks if (left := _tasks_left_in(folder)) is not None]
        return min(found, default=None)


def _folders(root: str, controller: str, lines: list[str]) -> Iterator[str]:
    """Give the folders of the process's group and of those around it, for version 2 and for the controller's own
    hierarchy of version 1. In a container the path of the group may be the host's: then only the root is there."""
    places = {root: "", f"{root}/{controller}": ""}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            places |= {root: path, f"{root}/unified": path}
        elif controller in controllers.split(","):
            places |= {f"{root}/{controllers}": path, f"{root}/{controller}": path}
    for top, path in places.items():
        parts = [part for part in path.split("/") if part]
        if ".." in parts:  # a group outside of what this process's namespace shows
            parts = []
        for count in range(len(parts), -1, -1):
            folder = "/".join([top, *parts[:count]])
            if os.path.isdir(folder):  # noqa: PTH112 - strings: a Path would intern every part
                yield folder


def _memory_of(folder: str) -> MemoryLimit | None:
    facts = dict(line.split(maxsplit=1) for line in (_text(f"{folder}/memory.stat") or "").splitlines() if " " in line)
    used = _number(f"{folder}/memory.current")
    limits = {name: _number(f"{folder}/{name}") for name in ("memory.max", "memory.high")}
    cache = facts.get("inactive_file")
    if used is None:
        used = _number(f"{folder}/memory.usage_in_bytes")
        around = facts.get("hierarchical_memory_limit")
        limits = {"memory.limit_in_bytes": _number(f"{folder}/memory.limit_in_bytes")}
        limits |= {"memory.stat": None if around is None else float(around)}
        cache = facts.get("total_inactive_file", cache)
    set_ones = {name: value for name, value in limits.items() if value is not None and value < _NO_LIMIT}
    if used is None or not set_ones:
        return None
    name, limit = min(set_ones.items(), key=lambda item: item[1])
    left = max(0.0, limit - used + float(cache or 0))
    return MemoryLimit(left_mb=left / MIB, limit_mb=limit / MIB, name=name, group=folder)


def _quota_of(folder: str) -> float | None:
    """Return the CPUs a group's quota gives, or None without one."""
    quota, _, period = (_text(f"{folder}/cpu.max") or "").partition(" ")
    if not period:
        quota = _text(f"{folder}/cpu.cfs_quota_us") or ""
        period = _text(f"{folder}/cpu.cfs_period_us") or ""
    try:
        given = float(quota) / float(period)
    except (ValueError, ZeroDivisionError):  # "max", or no such files
        return None
    return given if given > 0 else None  # version 1 says -1 for none


def _tasks_left_in(folder: str) -> int | None:
    limit, used = _number(f"{folder}/pids.max"), _number(f"{folder}/pids.current")
    return None if limit is None or used is None else max(0, int(limit - used))


def _text(path: str) -> str | None:
    try:
        with open(path, errors="replace") as file:  # noqa: PTH123 - as above
            return file.read().strip()
    except OSError:
        return None


def _number(path: str) -> float | None:
    try:
        return float(_text(path) or "")
    except ValueError:
        return None
