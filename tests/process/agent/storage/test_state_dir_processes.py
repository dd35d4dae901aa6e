"""What `test_state_dir.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REFUSING = """
import os, pathlib, sys
from edge_io.durable_files import delete_tree

unlink = os.unlink

def refuse_one(path):
    if path.endswith("held"):
        raise PermissionError
    unlink(path)

os.unlink = refuse_one
delete_tree(pathlib.Path(sys.argv[1]))
assert not {"shutil", "bz2", "lzma"} & sys.modules.keys()
"""


def test_what_cannot_be_deleted_is_left_and_the_rest_is_gone(tmp_path: Path) -> None:
    doomed = tmp_path / "doomed"
    (doomed / "a").mkdir(parents=True)
    (doomed / "a" / "file").touch()
    (doomed / "held").touch()
    subprocess.run([sys.executable, "-c", REFUSING, str(doomed)], check=True, timeout=60)
    assert [path.name for path in doomed.iterdir()] == ["held"]
