"""What the machine did while something was measured: the CPU others took, frequency, temperature, throttling. Facts,
read from /proc and /sys; None or zero where the machine does not tell. What follows from them is in `causes`."""

from __future__ import annotations

import os
import time
from pathlib import Path

from edge_agent.host.sensors import Sensors
from edge_contracts.codec import StrictRecord

_CPUS = Path("/sys/devices/system/cpu")
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class MachineState(StrictRecord, frozen=True, kw_only=True):
    """A moment: CPU seconds of the whole machine so far (`busy_s`, and `stolen_s` that a hypervisor gave to others),
    clock frequency of the fastest core in MHz, temperature in degrees Celsius, whether the firmware throttles now, and
    how often cores were throttled since boot."""

    at_s: float
    busy_s: float = 0.0
    stolen_s: float = 0.0
    frequency_mhz: float | None = None
    temperature_c: float | None = None
    throttled: bool | None = None
    throttle_count: int = 0


def machine_state() -> MachineState:
    """Read the state now."""
    busy, stolen = _cpu_seconds()
    readings = Sensors(Path("/")).read((), time.monotonic())
    return MachineState(
        at_s=time.monotonic(),
        busy_s=busy,
        stolen_s=stolen,
        frequency_mhz=_frequency(),
        temperature_c=readings.temperature_c,
        throttled=readings.throttled,
        throttle_count=sum(_numbers("cpu*/thermal_throttle/core_throttle_count")),
    )


def _cpu_seconds() -> tuple[float, float]:
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0, 0.0
    user, nice, system, _, _, irq, soft, stolen = (int(word) for word in words[:8])
    return (user + nice + system + irq + soft) / _TICKS, stolen / _TICKS


def _frequency() -> float | None:
    found = _numbers("cpu[0-9]*/cpufreq/scaling_cur_freq")
    if found:
        return max(found) / 1e3
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    told = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return max(told) if told else None


def _numbers(pattern: str) -> list[int]:
    found = []
    for path in _CPUS.glob(pattern):
        try:
            found.append(int(path.read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return found
