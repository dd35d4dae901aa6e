"""The signing keys of a fleet: one folder of ed25519 keys, private halves readable by their owner only.

`<name>.pem` is a private key (PKCS8), `<name>.pub` its public half, which may stay when the private file moves to
another machine or into a safe. Which key signs which role is in the signed metadata (`edge_fleet.repository`); here
keys are found by their key id, so any subset of them may be at hand.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from edge_fleet.errors import FleetError, KeyExposedError, KeyMissingError
from edge_fleet.files import PRIVATE_FILE, PRIVATE_FOLDER, make_folder, write_file

ROOT, RELEASES, ROLLOUTS, SNAPSHOT, TIMESTAMP = "root", "releases", "rollouts", "snapshot", "timestamp"


def root_names(count: int) -> list[str]:
    """Return the names of `count` root keys: root, root-2, root-3, ..."""
    return [ROOT] + [f"{ROOT}-{number}" for number in range(2, count + 1)]


class KeyRing:
    """The keys in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, names: Iterable[str]) -> None:
        """Generate a key for every name. Raises KeyExposedError inside a git work tree, FleetError if one exists."""
        check_outside_git(self.folder)
        make_folder(self.folder, PRIVATE_FOLDER)
        for name in names:
            self._create_one(name)

    def public(self, name: str) -> SSlibKey:
        """Return the public half of a named key. Raises KeyMissingError naming the file."""
        path = self.folder / f"{name}.pub"
        if not path.exists():
            raise KeyMissingError("no such public key", subject=str(path), hint="copy it from the machine that has it")
        try:
            return SSlibKey.from_crypto(load_pem_public_key(path.read_bytes()))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise FleetError("not a public key in PEM form", subject=str(path)) from error

    def names(self) -> dict[str, str]:
        """Return the names of the keys known here, by key id."""
        return {self.public(path.stem).keyid: path.stem for path in sorted(self.folder.glob("*.pub"))}

    def at_hand(self, keyids: Sequence[str]) -> list[str]:
        """Return the names of those keys whose private half is here."""
        names = self.names()
        return [names[keyid] for keyid in keyids if keyid in names and self._private(names[keyid]).exists()]

    def signers(self, role: str, keys: Sequence[Key], threshold: int) -> list[Signer]:
        """Return signers for `role` from those of `keys` that are here.

        Raises KeyMissingError naming the missing files when fewer than `threshold` are, KeyExposedError when a
        private key can be read by others, FleetError when a file holds another key.
        """
        names = self.names()
        found: list[Signer] = []
        missing: list[str] = []
        for key in keys:
            path = self._private(names.get(key.keyid, f"{role}-{key.keyid[:8]}"))
            if path.exists():
                found.append(_load(path, key.keyid))
            else:
                missing.append(str(path))
        if len(found) < threshold:
            raise KeyMissingError(
                f"signing {role!r} needs {threshold} key(s), {len(found)} here; not found: {', '.join(missing)}",
                subject=missing[0],
                hint="run this where the key is kept, or bring the file here for as long as it takes",
            )
        return found

    def _private(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def _create_one(self, name: str) -> None:
        path = self._private(name)
        if path.exists():
            raise FleetError("this key exists already and is never overwritten", subject=str(path))
        key = Ed25519PrivateKey.generate()
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        write_file(path, secret, PRIVATE_FILE)
        write_file(path.with_suffix(".pub"), public)


def check_outside_git(folder: Path) -> None:
    """Raise KeyExposedError if `folder` lies in a git work tree, where one `git add` publishes the keys."""
    place = folder.absolute().resolve()
    for parent in (place, *place.parents):
        if (parent / ".git").exists():
            raise KeyExposedError(
                f"keys do not belong in a git work tree ({parent})",
                subject=str(folder),
                hint="choose a folder outside any repository, for example ~/fleet",
            )


def _load(path: Path, keyid: str) -> Signer:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise KeyExposedError("others can read this private key", subject=str(path), hint=f"chmod 600 {path}")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FleetError("not an unencrypted private key in PEM form", subject=str(path)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise FleetError("not an ed25519 key", subject=str(path))
    signer = CryptoSigner(key)
    if signer.public_key.keyid != keyid:
        raise FleetError("not the private half of the key the metadata names", subject=str(path))
    return signer
