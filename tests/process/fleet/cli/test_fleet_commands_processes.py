"""What `test_fleet_commands.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_errors_have_the_exit_code_of_whose_fault_it_is_and_a_hint(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgewright.cli", "fleet", "status", str(tmp_path), "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert json.loads(ended.stderr)["hint"].startswith("edgewright fleet init")
