"""Meters of energy. Each counts joules since it was opened; what it measures, a processor or a whole board, it says.

RAPL counts by itself. INA sensors and meters on a serial line tell watts, which a thread adds up. Another meter is a
plug-in: an entry point of the group `edgewright.meters` that returns an object with `name` and `joules`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from edge_bench.energy.serial_line import SerialMeter
from edge_contracts.errors import OperatorError

GROUP = "edgewright.meters"
SYS = Path("/sys")
PERIOD_S = 0.02
"""How often watts are read, in seconds."""

_INA = ("ina209", "ina219", "ina220", "ina226", "ina228", "ina230", "ina231", "ina237", "ina238", "ina3221")


class Meter(Protocol):
    """Counts energy."""

    @property
    def name(self) -> str:
        """What it measures, in words."""
        ...

    def joules(self) -> float:
        """Return the joules since the meter was opened."""
        ...

    def close(self) -> None: ...


class Rapl:
    """The processor's own counters: all packages together. A counter that ran over is taken to have done so once."""

    def __init__(self, sys: Path = SYS) -> None:
        self._zones = sorted((sys / "class" / "powercap").glob("intel-rapl:[0-9]*"))
        self._zones = [zone for zone in self._zones if zone.name.count(":") == 1]
        self._last = [_integer(zone / "energy_uj") for zone in self._zones]
        self._ranges = [_integer(zone / "max_energy_range_uj") for zone in self._zones]
        self._joules = 0.0
        self.name = f"RAPL: {len(self._zones)} processor package{'s' if len(self._zones) > 1 else ''}"

    @property
    def works(self) -> bool:
        """Whether there are counters that may be read."""
        return bool(self._zones) and None not in self._last

    def joules(self) -> float:
        for place, zone in enumerate(self._zones):
            now, before = _integer(zone / "energy_uj"), self._last[place]
            if now is None or before is None:
                continue
            grown = now - before if now >= before else now - before + (self._ranges[place] or 0)
            self._joules += grown / 1e6
            self._last[place] = now
        return self._joules

    def close(self) -> None:
        return


class Summed:
    """Adds up watts that a function reads: `read` returns them, or None where a reading failed."""

    def __init__(self, name: str, read: Callable[[], float | None]) -> None:
        self.name = name
        self._read, self._joules = read, 0.0
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        before, watts = time.monotonic(), self._read()
        while not self._stop.wait(PERIOD_S):
            now, found = time.monotonic(), self._read()
            if watts is not None and found is not None:
                with self._lock:
                    self._joules += (watts + found) / 2 * (now - before)
            before, watts = now, found

    def joules(self) -> float:
        with self._lock:
            return self._joules

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def ina_reader(sys: Path = SYS) -> tuple[str, Callable[[], float | None]] | None:
    """Return the first INA sensor that the kernel knows (hwmon), and what reads its watts."""
    for chip in sorted((sys / "class" / "hwmon").glob("hwmon*")):
        try:
            kind = (chip / "name").read_text(encoding="ascii").strip()
        except OSError:
            continue
        if kind not in _INA:
            continue
        if _integer(chip / "power1_input") is not None:
            return kind.upper(), lambda at=chip: _scaled(at / "power1_input", 1e6)
        if _integer(chip / "in1_input") is not None and _integer(chip / "curr1_input") is not None:
            return kind.upper(), lambda at=chip: _product(at)
    return None


def _product(chip: Path) -> float | None:
    volts, amperes = _scaled(chip / "in1_input", 1e3), _scaled(chip / "curr1_input", 1e3)
    return None if volts is None or amperes is None else volts * amperes


def open_meter(wanted: str, sys: Path = SYS) -> Meter | None:
    """Return a meter: `auto` is what is there, None when nothing is; `none`; `rapl`; `ina`; `serial:DEVICE[@BAUD]`; or
    the name of a plug-in. Raises OperatorError when the one asked for is not there."""
    if wanted == "none":
        return None
    if wanted.startswith("serial:"):
        line = SerialMeter(wanted.removeprefix("serial:"))
        return Summed(line.name, line.watts)
    if wanted in ("auto", "rapl"):
        rapl = Rapl(sys)
        if rapl.works:
            return rapl
    if wanted in ("auto", "ina"):
        found = ina_reader(sys)
        if found is not None:
            return Summed(*found)
    if wanted == "auto":
        return None
    return _plugged(wanted)


def _plugged(wanted: str) -> Meter:
    known = {point.name: point for point in entry_points(group=GROUP)}
    if wanted not in known:
        hint = f"one of auto, none, rapl, ina, serial:DEVICE, or a plug-in ({', '.join(known) or 'none is installed'})"
        raise OperatorError(f"no meter {wanted[:80]!r} here", subject="--meter", hint=hint)
    with contextlib.suppress(ImportError):
        made: Meter = known[wanted].load()()
        return made
    raise OperatorError(f"plug-in {wanted!r} cannot be imported", subject="--meter")


def _scaled(path: Path, unit: float) -> float | None:
    value = _integer(path)
    return None if value is None else value / unit


def _integer(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
