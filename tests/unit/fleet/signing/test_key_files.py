"""Private keys that are not plain files: encrypted ones, keys on a token, keys named by a URI."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from support.makers import fleets
from support.makers.fleets import NOW, device_download
from support.parts.key_files import give

from edge_contracts.errors import ContractError
from edge_fleet.errors import FleetError, KeyExposedError, KeyLockedError
from edge_fleet.releases.release import release
from edge_fleet.signing import passphrases
from edge_fleet.signing.keys import RELEASES, KeyRing

PASSPHRASE = "correct horse battery staple"


@pytest.fixture(name="secret")
def _secret(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text(f"{PASSPHRASE}\n")
    path.chmod(0o600)
    return path


def test_a_release_is_signed_with_an_encrypted_key(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = fleets.make_fleet(tmp_path, families=("har",))
    fleet.keys.create(["locked"], passphrases.new_passphrase(secret))
    assert b"ENCRYPTED" in (fleet.keys.folder / "locked.pem").read_bytes()
    monkeypatch.setenv(passphrases.VARIABLE, str(secret))
    give(fleet, RELEASES, "locked")
    (fleet.keys.folder / "releases.pem").unlink()
    assert release(fleet, fleets.make_bundle(tmp_path / "bundle"), NOW).new
    assert device_download(fleet, tmp_path, "models/har/1.0.0/manifest.json") != [None]


def test_a_key_is_unlocked_once_for_all_that_a_command_signs(tmp_path: Path, secret: Path) -> None:
    asked: list[str] = []
    ring = KeyRing(tmp_path / "keys", lambda what: asked.append(what) or PASSPHRASE)
    ring.create(["root"], passphrases.new_passphrase(secret))
    for _ in range(3):
        ring.signers("root", [ring.public("root")], 1)
    assert asked == ["root.pem"]


def test_a_wrong_passphrase_opens_nothing(tmp_path: Path, secret: Path) -> None:
    ring = KeyRing(tmp_path / "keys", lambda _what: "something else")
    ring.create(["root"], passphrases.new_passphrase(secret))
    with pytest.raises(KeyLockedError, match="wrong passphrase"):
        ring.signers("root", [ring.public("root")], 1)


def test_without_terminal_and_file_an_encrypted_key_says_what_to_do(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(passphrases.VARIABLE, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    ring = KeyRing(tmp_path / "keys")
    ring.create(["root"], passphrases.new_passphrase(secret))
    with pytest.raises(KeyLockedError) as caught:
        ring.signers("root", [ring.public("root")], 1)
    assert passphrases.VARIABLE in str(caught.value.hint)


def test_a_passphrase_that_others_can_read_or_that_is_short_is_refused(secret: Path) -> None:
    secret.write_text("short")
    with pytest.raises(FleetError, match="at least 16"):
        passphrases.new_passphrase(secret)
    secret.chmod(0o644)
    with pytest.raises(KeyExposedError):
        passphrases.new_passphrase(secret)


@pytest.mark.parametrize("name", ["../escaped", "", "a/b", ".hidden/../x"])
def test_a_key_cannot_be_named_out_of_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ContractError):
        KeyRing(tmp_path / "keys").create([name])
    assert not list(tmp_path.rglob("*.pem"))


def test_a_key_named_by_a_uri_signs_like_a_file(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path, families=("har",))
    private = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "ec.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (fleet.keys.folder / "elsewhere.pub").write_bytes(public)
    uri = fleet.keys.folder / "elsewhere.uri"
    uri.write_text(f"file2:{tmp_path / 'ec.pem'}\n")
    uri.chmod(0o600)
    assert fleet.keys.form("elsewhere") == "token"
    give(fleet, RELEASES, "elsewhere")
    release(fleet, fleets.make_bundle(tmp_path / "bundle"), NOW)
    assert device_download(fleet, tmp_path, "models/har/1.0.0/manifest.json") != [None]
