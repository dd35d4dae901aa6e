"""Sealing for the operator: whoever has the public key can put something in, only the private key gets it out again.

Each box has a key of its own, from an X25519 agreement between a key made for this box alone, which is forgotten at
once, and the operator's. So what a device has written it cannot read, and neither can who steals it. A box is

    32 bytes  the public half of the key made for it
    n bytes   ChaCha20-Poly1305 of the content, under HKDF-SHA256 of what was agreed

and is bound to a context that opener and sealer both know. A seal keeps a secret; it does not say who sealed.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
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

from edge_contracts.errors import OperatorError, TrustError
from edge_contracts.limits import KIB

KEY_BYTES = 32
OVERHEAD_BYTES = KEY_BYTES + 16
"""How much larger a box is than its content."""

PRIVATE_NAME, PUBLIC_NAME = "capture.key", "capture.pub"

_PURPOSE = b"edgewright capture 1"
_NONCE = bytes(12)  # the key of a box is used once
_MAX_KEY_FILE_BYTES = 16 * KIB


class SealError(TrustError):
    """A box that was sealed for another key, belongs elsewhere, or was changed."""

    reason = "seal"


class Sealer:
    """Seals for one public key."""

    def __init__(self, public: X25519PublicKey) -> None:
        self._public = public
        self.public_bytes = public.public_bytes_raw()

    def seal(self, content: bytes, context: bytes) -> bytes:
        """Return a box with the content, bound to `context`."""
        once = X25519PrivateKey.generate()
        half = once.public_key().public_bytes_raw()
        key = _box_key(once.exchange(self._public), half, self.public_bytes)
        return half + ChaCha20Poly1305(key).encrypt(_NONCE, content, context)


class Opener:
    """Opens what was sealed for one key."""

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self.public_bytes = private.public_key().public_bytes_raw()

    def open(self, box: bytes, context: bytes) -> bytes:
        """Return a box's content. Raises SealError."""
        half = box[:KEY_BYTES]
        try:
            agreed = self._private.exchange(X25519PublicKey.from_public_bytes(half))
            return ChaCha20Poly1305(_box_key(agreed, half, self.public_bytes)).decrypt(_NONCE, box[KEY_BYTES:], context)
        except (InvalidTag, ValueError) as error:  # ValueError: not a point, or too short
            raise SealError("cannot be decrypted: wrong key, or the record was changed", subject="box") from error


def make_keys(folder: Path, passphrase: bytes | None) -> tuple[Path, Path]:
    """Write a new pair of keys into `folder`; return the private and the public file. The private one is encrypted if
    there is a passphrase. Raises OperatorError rather than write over a key."""
    private = X25519PrivateKey.generate()
    protection: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    files = (
        (PRIVATE_NAME, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection), 0o600),
        (PUBLIC_NAME, private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, _, _ in files:
            if (folder / name).exists():
                hint = "captures encrypted for this key need it; choose another folder"
                raise OperatorError("file exists; a key is never overwritten", subject=str(folder / name), hint=hint)
        for name, data, mode in files:
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise OperatorError(f"cannot be written: {error.strerror}", subject=str(folder)) from error
    return folder / PRIVATE_NAME, folder / PUBLIC_NAME


def load_sealer(path: Path) -> Sealer:
    """Read a public key. Raises OperatorError naming the file; a private key must not be on a device."""
    data = _key_file(path)
    if b"PRIVATE KEY" in data:
        hint = f"give the device {PUBLIC_NAME} and keep {PRIVATE_NAME} elsewhere"
        raise OperatorError("this is a private key", subject=str(path), hint=hint)
    try:
        key = load_pem_public_key(data)
    except ValueError as error:
        raise OperatorError("not a public key in PEM form", subject=str(path), hint=_HINT) from error
    if not isinstance(key, X25519PublicKey):
        raise OperatorError("not an X25519 key", subject=str(path), hint=_HINT)
    return Sealer(key)


def load_opener(path: Path, passphrase: bytes | None) -> Opener:
    """Read a private key. Raises OperatorError naming the file."""
    try:
        key = load_pem_private_key(_key_file(path), passphrase)
    except TypeError as error:  # one is needed and not given, or the other way round
        hint = "give --passphrase-file" if passphrase is None else "remove --passphrase-file"
        raise OperatorError("encrypted and passphrase do not go together", subject=str(path), hint=hint) from error
    except ValueError as error:
        hint = f"check the passphrase, or {_HINT}"
        raise OperatorError("not a readable private key", subject=str(path), hint=hint) from error
    if not isinstance(key, X25519PrivateKey):
        raise OperatorError("not an X25519 key", subject=str(path), hint=_HINT)
    return Opener(key)


_HINT = "`edgewright agent capture-key FOLDER` creates a key pair"


def _key_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY_FILE_BYTES)
    except OSError as error:
        raise OperatorError(f"cannot be read: {error.strerror}", subject=str(path), hint=_HINT) from error


def _box_key(agreed: bytes, half: bytes, recipient: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE + half + recipient).derive(agreed)
