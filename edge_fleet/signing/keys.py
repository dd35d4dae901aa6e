"""The signing keys of a fleet: one folder of keys, private halves readable by their owner only.

`<name>.pem` is a private ed25519 key (PKCS8, encrypted or not), `<name>.pub` its public half, which may stay when the
private file moves to another machine or into a safe. `<name>.uri` stands in for a private half that cannot be a file:
it names a key on a token (PKCS#11, YubiKey) for securesystemslib. Which key signs which role is in the signed metadata
(`edge_fleet.signing.repository`); here keys are found by their key id, so any subset of them may be at hand. What a
change of keys is, is in `edge_fleet.signing.ceremony`.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import CryptoSigner, HSMSigner, Key, Signer, SSlibKey
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata

from edge_contracts.codec import convert
from edge_contracts.errors import MissingExtraError
from edge_contracts.names import NAME_PATTERN, Name
from edge_fleet.errors import FleetError, KeyExposedError, KeyLockedError, KeyMissingError
from edge_fleet.signing.passphrases import Secrets, ask_secret
from edge_io.durable_files import PRIVATE_FILE, PRIVATE_FOLDER, make_folder, write_file

NAME_FIELD = "x-edgewright-name"
"""Where the signed metadata keeps a key's name, for people. What counts is the key id."""

ENCRYPTED = b"BEGIN ENCRYPTED PRIVATE KEY"

ROOT, RELEASES, ROLLOUTS, SNAPSHOT, TIMESTAMP = "root", "releases", "rollouts", "snapshot", "timestamp"


def root_names(count: int) -> list[str]:
    """Return the names of `count` root keys: root, root-2, root-3, ..."""
    return [ROOT] + [f"{ROOT}-{number}" for number in range(2, count + 1)]


class KeyRing:
    """The keys in one folder. `secrets` is asked for passphrases and PINs, once for each key."""

    def __init__(self, folder: Path, secrets: Secrets = ask_secret) -> None:
        self.folder = folder
        self._secrets = secrets
        self._opened: dict[str, Signer] = {}

    def create(self, names: Iterable[str], passphrase: bytes | None = None) -> None:
        """Generate a key for every name, encrypted if there is a passphrase.

        Raises KeyExposedError inside a git work tree, FleetError if one exists, ContractError for a name.
        """
        check_outside_git(self.folder)
        make_folder(self.folder, PRIVATE_FOLDER)
        encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
        for name in names:
            self._create_one(convert(name, Name, what="key"), encryption)

    def adopt_token(self, name: str, token: str | None = None, slot: int | None = None) -> None:
        """Write down the public half of a key on a PKCS#11 token and how to find it again.

        `token` is the token's label, needed if there are several; `slot` the key's id there (2, PIV slot 9c, if None).
        Raises MissingExtraError without python-pkcs11, KeyLockedError when there is no such token or key.
        """
        check_outside_git(self.folder)
        make_folder(self.folder, PRIVATE_FOLDER)
        self._refuse_existing(convert(name, Name, what="key"))
        try:
            uri, key = HSMSigner.import_(slot, token, self._secrets)
        except UnsupportedLibraryError as error:
            raise MissingExtraError("hsm", "python-pkcs11") from error
        except ValueError as error:
            raise KeyLockedError(
                str(error), subject=name, hint="set PYKCS11LIB to the path of the token's PKCS#11 library"
            ) from error
        write_file(self.folder / f"{name}.pub", key.keyval["public"].encode())
        write_file(self.folder / f"{name}.uri", uri.encode(), PRIVATE_FILE)

    def public(self, name: str) -> SSlibKey:
        """Return the public half of a named key; its name goes with it. Raises KeyMissingError naming the file."""
        path = self.folder / f"{name}.pub"
        if not path.exists():
            raise KeyMissingError("no such public key", subject=str(path), hint="copy it from the machine that has it")
        try:
            key = SSlibKey.from_crypto(load_pem_public_key(path.read_bytes()))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise FleetError("not a public key in PEM form", subject=str(path)) from error
        key.unrecognized_fields[NAME_FIELD] = name
        return key

    def names(self) -> dict[str, str]:
        """Return the names of the keys known here, by key id."""
        return {self.public(path.stem).keyid: path.stem for path in sorted(self.folder.glob("*.pub"))}

    def form(self, name: str) -> str | None:
        """Return how the private half is here: "file", "encrypted file", "token", or None if it is not."""
        path = self._private(name)
        if not path.exists():
            return None
        if path.suffix == ".uri":
            return "token"
        return "encrypted file" if ENCRYPTED in path.read_bytes() else "file"

    def free_name(self, role: str) -> str:
        """Return a name for a role's next key: the role's own, or the first of `-2`, `-3`, ... that is free."""
        number, name = 1, role
        while (self.folder / f"{name}.pub").exists() or self._private(name).exists():
            number += 1
            name = f"{role}-{number}"
        return name

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
                found.append(self._signer(path, key))
            else:
                missing.append(str(path))
        if len(found) < threshold:
            raise KeyMissingError(
                f"signing {role!r} needs {threshold} key(s), {len(found)} available; missing: {', '.join(missing)}",
                subject=missing[0],
                hint="run this on the machine that has the key, or copy the key file here temporarily",
            )
        return found

    def _private(self, name: str) -> Path:
        token = self.folder / f"{name}.uri"
        return token if token.exists() else self.folder / f"{name}.pem"

    def _signer(self, path: Path, key: Key) -> Signer:
        if key.keyid not in self._opened:
            _check_private(path)
            load = self._on_token if path.suffix == ".uri" else self._in_file
            self._opened[key.keyid] = load(path, key)
        return self._opened[key.keyid]

    def _on_token(self, path: Path, key: Key) -> Signer:
        """Return a signer for a key that is named by a URI, and asks for its PIN once."""
        known: list[str] = []

        def pin(_what: str) -> str:
            known.extend([] if known else [self._secrets(path.name)])
            return known[0]

        try:
            return Signer.from_priv_key_uri(path.read_text().strip(), key, pin)
        except UnsupportedLibraryError as error:
            raise MissingExtraError("hsm", "python-pkcs11") from error
        except (ValueError, OSError) as error:
            raise FleetError(f"no usable key: {error}", subject=str(path)) from error

    def _in_file(self, path: Path, key: Key) -> Signer:
        data = path.read_bytes()
        password = self._secrets(path.name).encode() if ENCRYPTED in data else None
        try:
            private = load_pem_private_key(data, password)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            if password is not None:
                raise KeyLockedError("wrong passphrase", subject=str(path)) from error
            raise FleetError("not a private key in PEM form", subject=str(path)) from error
        if not isinstance(private, Ed25519PrivateKey):
            raise FleetError("not an ed25519 key", subject=str(path))
        signer = CryptoSigner(private)
        if signer.public_key.keyid != key.keyid:
            raise FleetError("does not belong to the public key in the metadata", subject=str(path))
        return signer

    def _refuse_existing(self, name: str) -> None:
        if self._private(name).exists():
            raise FleetError("key exists and is never overwritten", subject=str(self._private(name)))

    def _create_one(self, name: str, encryption: KeySerializationEncryption) -> None:
        self._refuse_existing(name)
        path = self._private(name)
        key = Ed25519PrivateKey.generate()
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        write_file(path, secret, PRIVATE_FILE)
        write_file(path.with_suffix(".pub"), public)


def sign(metadata: Metadata[Any], signers: Iterable[Signer]) -> None:
    """Add the signatures of `signers`. Raises KeyLockedError if one cannot sign: a token that is not there, a PIN."""
    for signer in signers:
        try:
            metadata.sign(signer, append=True)
        except UnsignedMetadataError as error:
            raise KeyLockedError(
                f"did not sign: {error.__cause__ or error!r}", subject=key_name(signer.public_key)
            ) from error


def key_name(key: Key) -> str:
    """Return the name a key was given by whoever added it, or the beginning of its id. It is fit to be printed."""
    name = str(key.unrecognized_fields.get(NAME_FIELD))
    return name if NAME_FIELD in key.unrecognized_fields and re.fullmatch(NAME_PATTERN, name) else key.keyid[:8]


def check_outside_git(folder: Path) -> None:
    """Raise KeyExposedError if `folder` lies in a git work tree, where one `git add` publishes the keys."""
    place = folder.absolute().resolve()
    for parent in (place, *place.parents):
        if (parent / ".git").exists():
            raise KeyExposedError(
                f"keys must not be in a git work tree ({parent})",
                subject=str(folder),
                hint="choose a folder outside any repository, for example ~/fleet",
            )


def _check_private(path: Path) -> None:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise KeyExposedError("private key is readable by other users", subject=str(path), hint=f"chmod 600 {path}")
