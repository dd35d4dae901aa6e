"""What `test_delta_apply.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.makers.deltas import forged

from edge_agent.updater.delta_apply import known_codecs
from edge_contracts.delta import Copy, Difference, Insert
from edge_contracts.limits import MIB

"""4 bytes copied; 4 of one byte, +1 0 -1 0; 2 of four bytes, 0 and -1; "new"."""


@pytest.mark.parametrize("codec", sorted(known_codecs()))
def test_memory_is_bounded_whatever_the_size(tmp_path: Path, codec: str) -> None:
    """64 MiB of difference, 64 of copy and 64 of bomb in a process that may have 160 MiB more than Python and numpy."""
    size = 64 * MIB
    with (tmp_path / "base").open("wb") as base:
        base.truncate(size)
    operations = [Difference(length=size, offset=0, lane=4), Copy(length=size, offset=0), Insert(length=size)]
    masks = bytes(size // 8)
    (tmp_path / "delta").write_bytes(forged(operations, masks=masks, literals=bytes(size), codec=codec))
    program = (
        "import resource, sys; from pathlib import Path; import numpy;"
        "from edge_agent.updater.delta_apply import apply_delta;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "pieces = apply_delta(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]));"
        "assert sum(map(len, pieces)) == int(sys.argv[4]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    arguments = [str(tmp_path / "base"), str(tmp_path / "delta"), codec, str(3 * size)]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 24 * 1024
