"""An SD card that gives an error: a real ext4 file system in a file, which the kernel stops writing to when told so.

with FailingCard(tmp_path) as card: state = card.folder / "state"; ...; card.fail()
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

MIB = 1024 * 1024


class FailingCard:
    """See the module. Mounting takes root and a loop device: in CI the test fails without, elsewhere it is skipped."""

    def __init__(self, folder: Path) -> None:
        self._image = folder / "card.img"
        self.folder = folder / "card"

    def fail(self) -> None:
        """Have the kernel find an error on it, as on a card with bad blocks; it takes no change from then on."""
        (device,) = (line.split()[0] for line in _mounts() if line.split()[1] == str(self.folder))
        Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("1")
        with pytest.raises(OSError, match="Read-only file system"):
            (self.folder / "refused").touch()

    def __enter__(self) -> FailingCard:
        self.folder.mkdir()
        with self._image.open("wb") as file:
            file.truncate(128 * MIB)
        for words in (
            ["mkfs.ext4", "-q", "-F", str(self._image)],
            ["mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.folder)],
        ):
            self._do(words)
        if not Path("/sys/fs/ext4").is_dir():
            subprocess.run(["umount", str(self.folder)], check=True)
            pytest.skip("this kernel cannot be told of an error of a card")
        return self

    def _do(self, words: list[str]) -> None:
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            refused = done.stderr if done.returncode else None
        except FileNotFoundError as error:
            refused = str(error)
        if refused is not None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no card can be mounted: {refused.strip()}")

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


def _mounts() -> list[str]:
    return Path("/proc/mounts").read_text().splitlines()
