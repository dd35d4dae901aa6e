"""A disk of a chosen size for tests: a tmpfs that can be filled and freed at once by changing how large it is.

with SmallDisk(tmp_path / "disk") as disk: disk.leave(1.5); disk.free()
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

MIB = 1024 * 1024
ROOMY_MB = 256.0
PAGE = 4096


class SmallDisk:
    """See the module. Mounting takes root: in CI the test fails without it, elsewhere it is skipped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def leave(self, megabytes: float) -> None:
        """Make the disk so small that only this much is free. Something may be writing: 0 is tried until it is true."""
        for _ in range(200):
            size = (self._used() + int(megabytes * MIB)) // PAGE * PAGE
            if self._mount("-o", f"remount,size={size}", "tmpfs") is None:
                return
        raise AssertionError("the disk could not be filled")

    def free(self) -> None:
        """Give the disk plenty of room again."""
        assert self._mount("-o", f"remount,size={int(ROOMY_MB * MIB)}", "tmpfs") is None

    def read_only(self) -> None:
        """Take no change from now on, as the kernel mounts a worn card at boot. Nothing may be open for writing."""
        assert self._mount("-o", "remount,ro", "tmpfs") is None

    def writable(self) -> None:
        """Take changes again."""
        assert self._mount("-o", "remount,rw", "tmpfs") is None

    def free_mb(self) -> float:
        """Return how much is free."""
        facts = os.statvfs(self.folder)
        return facts.f_bavail * facts.f_frsize / MIB

    def _used(self) -> int:
        facts = os.statvfs(self.folder)
        return (facts.f_blocks - facts.f_bfree) * facts.f_frsize

    def _mount(self, *words: str) -> str | None:
        """Mount; return why it failed."""
        done = subprocess.run(["mount", *words, str(self.folder)], capture_output=True, text=True, check=False)
        return None if done.returncode == 0 else done.stderr

    def __enter__(self) -> SmallDisk:
        self.folder.mkdir()
        refused = self._mount("-t", "tmpfs", "-o", f"size={int(ROOMY_MB * MIB)}", "tmpfs")
        if refused is not None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no small disk can be mounted: {refused.strip()}")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
