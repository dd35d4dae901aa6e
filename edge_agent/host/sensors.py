"""What the box says about itself in /proc and /sys, each reading None where it cannot be had.

What limits of our own leave is in `edge_agent.host.control_groups`, what follows from the readings in
`edge_agent.host.governor`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path
from sys import intern

from edge_agent.host.control_groups import ControlGroups
from edge_agent.host.governor import Readings

MIB = 1024 * 1024
_THROTTLED_NOW = 0b1111
"""Low nibble of the Raspberry Pi firmware's flags: under-voltage, frequency capped, throttled, soft temperature limit.
The high bits only say that it happened since boot."""

_PARTS = "* class thermal thermal_zone* temp power_supply type status capacity devices platform soc soc:firmware"
_PARTS += " get_throttled proc meminfo hwmon hwmon* name temp*_input"
_INTERNED = tuple(map(intern, _PARTS.split()))
"""Parts of the paths that are read every few seconds. A Path interns its parts; of strings that come and go, the
interpreter's table of interned ones doubles in time, by half a megabyte. What is kept here stays in it."""


_CPU_CHIPS = frozenset({"coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal", "via_cputemp", "fam15h_power"})
_NOT_THE_BOARD = ("nvme", "drivetemp", "iwlwifi", "ath1", "mt7", "amdgpu", "radeon", "nouveau")
"""Names of hwmon drivers: of CPUs, and of disks, radios and graphics cards, whose heat the agent does not make."""


class Sensors:
    """Reads the sensors below `sys`, which is /sys or where a container has the host's, and the disk of `state`."""

    def __init__(self, state: Path, sys: Path = Path("/sys"), proc: Path = Path("/proc")) -> None:
        self.groups = ControlGroups(sys, proc)
        self._state = state
        self._sys = sys
        self._proc = proc
        self._cpu: dict[int, float] = {}
        self._read_at: float | None = None

    def read(self, pids: Iterable[int], now: float) -> Readings:
        """Return all readings at `now`, seconds of a clock that only goes forward."""
        limit, tasks = self.groups.memory(), self.groups.tasks_left()
        return Readings(
            temperature_c=self._temperature(),
            available_memory_mb=memory_available_mb(self._proc),
            memory_limit_left_mb=None if limit is None else limit.left_mb,
            disk_free_mb=disk_free_mb(self._state),
            free_inodes=free_inodes(self._state),
            tasks_left=None if tasks is None else float(tasks),
            cpu_percent=self._cpu_percent(pids, now),
            battery_percent=self._battery(),
            throttled=self._throttled(),
        )

    def _cpu_percent(self, pids: Iterable[int], now: float) -> float | None:
        """Return the share of the CPU time we may use that the processes `pids` took since the last call, in percent.

        Of all CPUs, or of those, or of the quota, that we are limited to. Ours only, not the whole box's: what the
        governor can do about CPU is to do less itself.
        """
        used = {pid: seconds for pid in pids if (seconds := cpu_seconds_of(pid)) is not None}
        spent = sum(seconds - self._cpu[pid] for pid, seconds in used.items() if pid in self._cpu)
        before, self._cpu, self._read_at = self._read_at, used, now
        if before is None or now <= before:
            return None
        return 100.0 * spent / (now - before) / self.groups.cpus()

    def _temperature(self) -> float | None:
        """Return the hottest thermal zone in degrees Celsius; without zones, the hottest of the CPU's or the board's
        own monitoring chips."""
        zones = _temperatures(self._sys.glob("class/thermal/thermal_zone*/temp"))
        if zones:
            return max(zones)
        cpu: list[float] = []
        other: list[float] = []
        for chip in self._sys.glob("class/hwmon/hwmon*"):
            name = _text(chip / "name") or ""
            if not name.startswith(_NOT_THE_BOARD):
                (cpu if name in _CPU_CHIPS else other).extend(_temperatures(chip.glob("temp*_input")))
        return max(cpu or other, default=None)

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


def _temperatures(files: Iterable[Path]) -> list[float]:
    """Return the degrees Celsius of sensor files in thousandths. Sensors that are switched off report 0 or nonsense; no
    working board is at 0 or above 200 degrees."""
    values = map(_number, files)
    return [value / 1000.0 for value in values if value is not None and 0 < value < 200_000]


def disk_free_mb(folder: Path) -> float | None:
    """Return the megabytes left on the file system of `folder`."""
    try:
        file_system = os.statvfs(folder)
    except OSError:
        return None
    return file_system.f_bavail * file_system.f_frsize / MIB


def free_inodes(folder: Path) -> float | None:
    """Return how many files can still be made on the file system of `folder`, None where it has no fixed number."""
    try:
        file_system = os.statvfs(folder)
    except OSError:
        return None
    return float(file_system.f_favail) if file_system.f_files else None


def memory_available_mb(proc: Path = Path("/proc")) -> float | None:
    """Return the megabytes of memory the box can give without swapping, or None where /proc does not tell (systemd's
    ProcSubset=pid). What our own limits leave of it is another reading, in `edge_agent.host.control_groups`."""
    for line in (_text(proc / "meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    return None


def memory_total_mb(proc: Path = Path("/proc")) -> float | None:
    """Return the megabytes of memory the box has, or None where /proc does not tell."""
    for line in (_text(proc / "meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) / 1024
    return None


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
