"""What makes a test a unit test: it starts no process, never sleeps, and takes less than a second of CPU time.

CPU time and not wall time, so that a busy machine fails nobody. Modules that a test is the first to import do not
count, because which test that is depends on who runs beside it. A test that needs more belongs into `tests/process`
(one real child) or `tests/system` (brokers, fleets, browsers, power cuts).
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from types import ModuleType

import pytest
from hypothesis import strategies as st

MAX_CPU_S = 1.0

LOOP, LOOPS = 400_000, 75
"""So many rounds of the loop in `_slow_s` take about a second, where nothing else runs on the same cores."""


class ImportClock:
    """Adds up the CPU seconds of this thread's imports, those within an import once."""

    def __init__(self) -> None:
        self.spent_s = 0.0
        self._exec = SourceFileLoader.exec_module
        self._is_importing = False

    def exec_module(self, loader: SourceFileLoader, module: ModuleType) -> None:
        if self._is_importing:
            return self._exec(loader, module)
        self._is_importing, start = True, time.process_time()
        try:
            return self._exec(loader, module)
        finally:
            self._is_importing = False
            self.spent_s += time.process_time() - start


IMPORTS = ImportClock()
SourceFileLoader.exec_module = lambda loader, module: IMPORTS.exec_module(loader, module)  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def prepared() -> None:
    """Have hypothesis build its table of characters, which it does once in a process or a checkout."""
    st.text(st.characters(exclude_categories=["Cs"])).validate()


def _slow_s() -> float:
    """Return how long a second's work takes now: shared cores and caches stretch CPU time, too."""
    start = time.process_time()
    for _ in range(3):
        sum(number * number for number in range(LOOP))
    return (time.process_time() - start) / 3 * LOOPS


@pytest.fixture(autouse=True)
def unit_rules(monkeypatch: pytest.MonkeyPatch, prepared: None) -> Iterator[None]:
    def refuse(what: str) -> None:
        pytest.fail(f"a unit test may not call {what}: move it to tests/process or tests/system")

    monkeypatch.setattr(subprocess.Popen, "__init__", lambda *_, **__: refuse("subprocess.Popen"))
    monkeypatch.setattr(os, "fork", lambda: refuse("os.fork"))
    monkeypatch.setattr(time, "sleep", lambda _: refuse("time.sleep"))
    start = time.process_time() - IMPORTS.spent_s
    yield
    taken = time.process_time() - IMPORTS.spent_s - start
    if taken > MAX_CPU_S and taken > _slow_s():
        pytest.fail(f"a unit test may take {MAX_CPU_S:g} s of CPU time, this one took {taken:.2f} s")
