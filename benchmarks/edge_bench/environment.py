"""Where a measurement was made: CPU, kernel, governor, load, and the versions that matter. Facts only, no judgement."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

from edge_contracts import __version__
from edge_contracts.codec import StrictRecord

DISTRIBUTIONS = ("numpy", "onnxruntime", "ai-edge-litert", "tflite-runtime")
INTERESTING_FLAGS = frozenset({"avx2", "avx512f", "avx512_vnni", "avx_vnni", "asimddp", "i8mm", "asimdhp"})
"""CPU features that decide how integer kernels run and whether they can saturate."""


class Environment(StrictRecord, frozen=True, kw_only=True):
    """The machine and its state when the measurement began; `load` is the one-minute load average."""

    cpu: str
    cores: int
    features: tuple[str, ...]
    architecture: str
    kernel: str
    governor: str | None
    load: float
    python: str
    versions: dict[str, str]


def environment(distributions: Iterable[str] = DISTRIBUTIONS) -> Environment:
    """Read the environment now."""
    name, flags = _cpu()
    return Environment(
        cpu=name,
        cores=os.cpu_count() or 1,
        features=tuple(sorted(INTERESTING_FLAGS & flags)),
        architecture=platform.machine(),
        kernel=platform.release(),
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        load=os.getloadavg()[0],
        python=platform.python_version(),
        versions={"edgewright": __version__, **versions(distributions)},
    )


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed."""
    found = {}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> tuple[str, frozenset[str]]:
    name, flags = platform.processor() or sys.platform, frozenset[str]()
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            name = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = frozenset(value.split())
    return name, flags


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
