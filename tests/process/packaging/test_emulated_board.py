"""The script of the emulated arm64 board where it cannot run. Where it can, `make arm64` takes minutes and a net."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "arm64" / "run.sh"


def test_what_is_missing_is_said_and_the_exit_code_is_that_of_a_skipped_test(tmp_path: Path) -> None:
    around = os.environ | {"PYTHON": str(tmp_path / "no" / "python")}
    run = subprocess.run(["bash", str(SCRIPT), str(tmp_path / "work")], env=around, capture_output=True, text=True)
    assert run.returncode == 77, run.stderr
    assert run.stdout.startswith("skipped: ")
    assert run.stdout.count("\n") == 1
    assert not (tmp_path / "work").exists()
