"""What makes a test a unit test: it starts no process, never sleeps, and takes less than a second of CPU time.

CPU time and not wall time, so that a busy machine fails nobody. A test that needs more belongs into `tests/process`
(one real child) or `tests/system` (brokers, fleets, browsers, power cuts).
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

MAX_CPU_S = 1.0


@pytest.fixture(autouse=True)
def unit_rules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(what: str) -> None:
        pytest.fail(f"a unit test may not call {what}: move it to tests/process or tests/system")

    monkeypatch.setattr(subprocess.Popen, "__init__", lambda *_, **__: refuse("subprocess.Popen"))
    monkeypatch.setattr(os, "fork", lambda: refuse("os.fork"))
    monkeypatch.setattr(time, "sleep", lambda _: refuse("time.sleep"))
    start = time.process_time()
    yield
    taken = time.process_time() - start
    if taken > MAX_CPU_S:
        pytest.fail(f"a unit test may take {MAX_CPU_S:g} s of CPU time, this one took {taken:.2f} s")
