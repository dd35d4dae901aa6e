"""What is read of the box itself, beside what psutil says."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from edge_agent.host.sensors import MIB, cpu_seconds_of, memory_available_mb


def test_memory_that_the_box_can_give_is_what_psutil_says() -> None:
    def apart() -> float:
        return abs((memory_available_mb() or 0.0) - psutil.virtual_memory().available / MIB)

    assert min(apart() for _ in range(20)) < 16.0, "the machine does other things meanwhile, but not always"


def test_cpu_time_of_a_process_is_what_psutil_says() -> None:
    busy = "import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\ntime.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", busy])
    try:
        while (used := cpu_seconds_of(process.pid) or 0.0) < 0.3:
            time.sleep(0.02)
        time.sleep(0.1)
        times = psutil.Process(process.pid).cpu_times()
        used = cpu_seconds_of(process.pid) or 0.0
        assert used == pytest.approx(times.user + times.system, abs=0.05)
    finally:
        process.kill()
        process.wait()
    assert cpu_seconds_of(process.pid) is None


def test_the_name_of_a_process_may_hold_anything(tmp_path: Path) -> None:
    named = tmp_path / "a) R 1 ("
    named.symlink_to(sys.executable)
    process = subprocess.Popen([named, "-S", "-c", "import time; time.sleep(60)"], env=os.environ)
    try:
        name = b"a) R 1 ("
        while name not in Path(f"/proc/{process.pid}/stat").read_bytes():
            time.sleep(0.02)
        assert 0.0 <= (cpu_seconds_of(process.pid) or 0.0) < 10.0
    finally:
        process.kill()
        process.wait()
