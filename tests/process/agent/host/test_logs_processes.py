"""What `test_logs.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_process_under_systemd_writes_priorities(tmp_path: Path) -> None:
    code = "import logging; from edge_agent.host.logs import configure_logging as c;"
    code += "c(verbose=False); logging.warning('w')"
    with (tmp_path / "log").open("w+") as stream:
        found = os.fstat(stream.fileno())
        environment = os.environ | {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        subprocess.run([sys.executable, "-c", code], stderr=stream, env=environment, check=True)
    assert (tmp_path / "log").read_text() == "<4>w\n"
