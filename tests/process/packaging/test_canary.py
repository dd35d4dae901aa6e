"""The canary where the package index cannot be reached. Where it can, `make canary` takes a minute."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.boxes.watched_network import can_watch

SCRIPT = Path(__file__).parents[3] / "tests" / "campaigns" / "canary" / "canary.py"


@pytest.mark.skipif(not can_watch(), reason="no network namespace can be made here")
def test_without_the_index_it_says_so_and_its_exit_code_is_that_of_a_skipped_test(tmp_path: Path) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_NO_CACHE_DIR": "1"}
    run = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "new"], env=os.environ | nowhere, capture_output=True, text=True
    )
    assert run.returncode == 77, run.stdout + run.stderr
    assert "skipped: the package index cannot be reached" in run.stdout
