"""What `test_key_files.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from support.makers import fleets
from support.makers.fleets import NOW, device_download
from support.parts.key_files import give

from edge_fleet.errors import KeyLockedError
from edge_fleet.releases.release import release
from edge_fleet.signing.keys import RELEASES, KeyRing

SOFTHSM = next(
    (path for path in map(Path, ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/libsofthsm2.so")) if path.exists()),
    None,
)


@pytest.mark.skipif(SOFTHSM is None and not os.environ.get("CI"), reason="needs softhsm2")
def test_a_key_on_a_pkcs11_token_signs_and_its_pin_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = make_token(tmp_path, monkeypatch)
    fleet = fleets.make_fleet(tmp_path, families=("har",))
    asked: list[str] = []
    fleet.keys = KeyRing(fleet.keys.folder, lambda what: asked.append(what) or "123456")
    fleet.keys.adopt_token("yubikey", token)
    assert fleet.keys.form("yubikey") == "token"
    give(fleet, RELEASES, "yubikey")
    release(fleet, fleets.make_bundle(tmp_path / "bundle"), NOW)
    assert asked == ["yubikey.uri"]
    assert device_download(fleet, tmp_path, "models/har/1.0.0/manifest.json") != [None]
    fleet.keys = KeyRing(fleet.keys.folder, lambda _what: "654321")
    with pytest.raises(KeyLockedError, match="yubikey"):
        release(fleet, fleets.make_bundle(tmp_path / "b2", version="1.1.0", model=b"new"), NOW)
    with pytest.raises(KeyLockedError, match="No PKCS#11 token"):
        fleet.keys.adopt_token("other", "no such token")


def make_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a software token with one P-256 key, id 2; return its label."""
    (folder / "tokens").mkdir()
    (folder / "softhsm.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(folder / "softhsm.conf"))
    monkeypatch.setenv("PYKCS11LIB", str(SOFTHSM))
    tool = shutil.which("softhsm2-util")
    assert tool is not None
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    pins = ("--pin", "123456")
    label = ("--label", "edgewright-test")
    for words in (
        ("--init-token", "--free", *label, *pins, "--so-pin", "12345678"),
        ("--import", str(folder / "key.pem"), "--token", label[1], *label, "--id", "02", *pins),
    ):
        subprocess.run([tool, *words], check=True, capture_output=True)
    return label[1]
