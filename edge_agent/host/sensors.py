"""What the box says about itself in /proc and /sys, each reading None where the device has no such sensor.

What follows from the readings is in `edge_agent.host.governor`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from sys import intern

from edge_agent.host.governor import Readings

MIB = 1024 * 1024
_THROTTLED_NOW = 0b1111
"""Low nibble of the Raspberry Pi firmware's flags: under-voltage, frequency capped, throttled, soft temperature limit.
The high bits only say that it happened since boot."""

_PARTS = "* class thermal thermal_zone* temp power_supply type status capacity devices platform soc soc:firmware"
_PARTS += " get_throttled proc self meminfo fs cgroup memory.max memory.high memory.current memory.stat"
_INTERNED = tuple(map(intern, _PARTS.split()))
"""Parts of the paths that are read every few seconds. A Path interns its parts; of strings that come and go, the
interpreter's table of interned ones doubles in time, by half a megabyte. What is kept here stays in it."""


class Sensors:
    """Reads the sensors below `sys`, which is /sys or where a container has the host's, and the disk of `state`."""

    def __init__(self, state: Path, sys: Path = Path("/sys")) -> None:
        self._state = state
        self._sys = sys
        self._cpu: dict[int, float] = {}
        self._read_at: float | None = None

    def read(self, pids: Iterable[int], now: float) -> Readings:
        """Return all readings at `now`, seconds of a clock that only goes forward."""
        return Readings(
            temperature_c=self._temperature(),
            available_memory_mb=memory_available_mb(self._sys),
            disk_free_mb=disk_free_mb(self._state),
            cpu_percent=self._cpu_percent(pids, now),
            battery_percent=self._battery(),
            throttled=self._throttled(),
        )

    def _cpu_percent(self, pids: Iterable[int], now: float) -> float | None:
        """Return the share of the box's CPU that the processes `pids` took since the last call, in percent.

        Ours only, not the whole box's: what the governor can do about CPU is to do less itself.
        """
        used = {pid: seconds for pid in pids if (seconds := cpu_seconds_of(pid)) is not None}
        spent = sum(seconds - self._cpu[pid] for pid, seconds in used.items() if pid in self._cpu)
        before, self._cpu, self._read_at = self._read_at, used, now
        if before is None or now <= before:
            return None
        return 100.0 * spent / (now - before) / (os.cpu_count() or 1)

    def _temperature(self) -> float | None:
        """Return the hottest thermal zone in degrees Celsius."""
        zones = (_number(zone / "temp") for zone in self._sys.glob("class/thermal/thermal_zone*"))
        # Zones that are switched off report 0 or nonsense; no working board is at 0 or above 200 degrees.
        good = [value / 1000.0 for value in zones if value is not None and 0 < value < 200_000]
        return max(good, default=None)

    def _battery(self) -> float | None:
        """Return the fullest battery's percentage, if one is discharging; on mains power it limits nothing."""
        supplies = self._sys.glob("class/power_supply/*")
        batteries = [s for s in supplies if _text(s / "type") == "Battery" and _text(s / "status") == "Discharging"]
        levels = (_number(battery / "capacity") for battery in batteries)
        return max((level for level in levels if level is not None), default=None)

    def _throttled(self) -> bool | None:
        for path in self._sys.glob("devices/platform/soc/soc:firmware/get_throttled"):
            text = _text(path)
            try:
                return None if text is None else bool(int(text, 16) & _THROTTLED_NOW)
            except ValueError:
                return None
        return None


def disk_free_mb(folder: Path) -> float | None:
    """Return the megabytes left on the file system of `folder`."""
    try:
        file_system = os.statvfs(folder)
    except OSError:
        return None
    return file_system.f_bavail * file_system.f_frsize / MIB


def memory_available_mb(sys: Path = Path("/sys"), proc: Path = Path("/proc")) -> float:
    """Return the megabytes of memory that can be had without swapping: the box's, or what the service's or container's
    own limits leave of it."""
    return min([_left_by_box_mb(proc), *_left_by_limits_mb(sys / "fs" / "cgroup")])


def _left_by_box_mb(proc: Path) -> float:
    for line in (_text(proc / "meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    import psutil  # on a system without, for development: it was a seventh of all that the supervisor imports

    return float(psutil.virtual_memory().available) / MIB


def _left_by_limits_mb(root: Path) -> Iterator[float]:
    """Give what each limit of this process's control group, and of those around it, leaves in megabytes. Page cache
    that has not been used of late counts as free. Source: the kernel's cgroup-v2.rst, "Memory"."""
    lines = (_text(Path("/proc/self/cgroup")) or "").splitlines()
    group = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    for folder in (root / group, *(root / group).parents):
        limits = [value for name in ("memory.max", "memory.high") if (value := _number(folder / name)) is not None]
        used = _number(folder / "memory.current")
        if limits and used is not None:
            facts = dict(line.split(maxsplit=1) for line in (_text(folder / "memory.stat") or "").splitlines())
            yield (min(limits) - used + float(facts.get("inactive_file", 0))) / MIB
        if folder == root:
            return


def memory_of(pid: int) -> float | None:
    """Return the resident memory of a process in megabytes, or None when it has ended."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123 - a Path would intern the number
            pages = file.read().split()[1]
    except (OSError, IndexError):
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / MIB


def cpu_seconds_of(pid: int) -> float | None:
    """Return the CPU time a process has used, in seconds, or None when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - as above
            fields = file.read().rpartition(b")")[2].split()  # what is before may hold anything
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # proc_pid_stat(5): utime, stime


def architecture() -> str:
    """Return the machine's architecture as profiles name it."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> float | None:
    try:
        return float(_text(path) or "")
    except ValueError:
        return None
