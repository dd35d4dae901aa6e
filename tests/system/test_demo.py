"""The demo: the whole product on one machine, as `make demo` runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(420)
def test_every_check_of_the_demo_holds(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    words = [str(Path(sys.executable).with_name("edgewright")), "demo", "--report", str(report)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    checks = json.loads(report.read_text())["checks"]
    assert len(checks) == 15
    assert all(check["ok"] for check in checks)
