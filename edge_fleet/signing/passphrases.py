"""Where the passphrases of key files and the PINs of tokens come from: a file named by the environment, or a prompt.

Nothing is kept: not on disk, not in the environment, and in memory only as long as a command runs.
"""

from __future__ import annotations

import getpass
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from edge_fleet.errors import FleetError, KeyExposedError, KeyLockedError

VARIABLE = "EDGEWRIGHT_PASSPHRASE_FILE"

MIN_CHARS = 16
"""Shortest passphrase for a new key file. PKCS8 as the library writes it derives its key with 2048 rounds of PBKDF2,
so that guessing is cheap and only length protects a file that was copied."""

Secrets = Callable[[str], str]
"""Given what a secret opens, returns it. Raises KeyLockedError when there is nobody to ask."""


def ask_secret(what: str) -> str:
    """Return the secret for `what` out of the file that EDGEWRIGHT_PASSPHRASE_FILE names, else from the terminal."""
    named = os.environ.get(VARIABLE)
    if named:
        return read_secret(Path(named))
    if not sys.stdin.isatty():
        raise KeyLockedError(
            "needs a passphrase, and there is no terminal for a prompt",
            subject=what,
            hint=f"write it to a file that only you can read, named in {VARIABLE} or by --passphrase-file",
        )
    return getpass.getpass(f"Passphrase or PIN for {what}: ")


def read_secret(path: Path) -> str:
    """Return the first line of a file that only its owner can read. Raises KeyExposedError or FleetError."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise KeyExposedError(
                "passphrase file is readable by other users", subject=str(path), hint=f"chmod 600 {path}"
            )
        return path.read_text().partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise FleetError(f"cannot read the passphrase: {error}", subject=str(path)) from error


def new_passphrase(path: Path | None) -> bytes:
    """Return a passphrase for a new key file, from `path` or typed twice. Raises FleetError for a short one."""
    if path is not None:
        found = read_secret(path)
    else:
        found = ask_secret("the new key")
        if VARIABLE not in os.environ and getpass.getpass("Repeat passphrase: ") != found:
            raise FleetError("the passphrases differ", subject="passphrase")
    if len(found) < MIN_CHARS:
        raise FleetError(f"{len(found)} characters, at least {MIN_CHARS} are needed", subject="passphrase")
    return found.encode()
