"""The commands of docs/runbooks, run as they stand there: what a test has run is what a person will read.

desk = Desk(site); desk.follow("stolen-rollouts-key.md")

`~` is a folder of the test's own, in which `~/fleet` is the site's fleet and `~/root-key` holds its root key, which is
no longer in the fleet. The documents' model, channel and places stand for the site's. `systemctl` is left to the test.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from support.sites.fleet_site import CHANNEL, MODEL, Site
from support.sites.install_sites import ROOT

RUNBOOKS = ROOT / "docs" / "runbooks"
PASSPHRASE = "correct horse battery staple"


class Desk:
    """Where somebody sits with the runbook, the fleet and the root keys."""

    def __init__(self, site: Site) -> None:
        self.home = site.folder / "home"
        self.home.mkdir()
        (self.home / "fleet").symlink_to(site.fleet)
        self._site = site
        for number in ("", "-2"):
            self._take_root_key(f"root{number}", self.home / f"root-key{number}")
        (self.home / "passphrase").write_text(PASSPHRASE)
        (self.home / "passphrase").chmod(0o600)

    def follow(self, runbook: str, section: str = "") -> None:
        """Run every block of a runbook, or of one of its sections, in order. Each command must succeed."""
        text = (RUNBOOKS / runbook).read_text()
        if section:
            text = re.split(r"^## ", text.partition(f"\n## {section}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
        blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        assert blocks, f"{runbook} {section}"
        for block in blocks:
            self._run(self._here(block))

    def _run(self, block: str) -> None:
        environment = os.environ | {
            "HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "EDGEWRIGHT_PASSPHRASE_FILE": str(self.home / "passphrase"),
        }
        for line in block.splitlines():
            words = ["bash", "-euc", line]
            done = subprocess.run(
                words, input="y\n", env=environment, capture_output=True, text=True, check=False, timeout=50
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"

    def _here(self, block: str) -> str:
        block = re.sub(r"^systemctl .*\n", "", block, flags=re.MULTILINE)
        block = re.sub(r"\bhar\b", MODEL, block)
        block = re.sub(r"\bwrist\b", CHANNEL, block).replace("--soak 600", "--soak 0.5")
        block = block.replace("/etc/edgewright/root.json", str(self._site.root))
        return block.replace("/var/lib/edgewright", str(self._site.state))

    def _take_root_key(self, name: str, folder: Path) -> None:
        keys = self._site.fleet / "keys"
        if (keys / f"{name}.pem").exists():
            folder.mkdir(mode=0o700)
            (keys / f"{name}.pem").rename(folder / f"{name}.pem")
            shutil.copy(keys / f"{name}.pub", folder)
