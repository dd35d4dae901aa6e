"""The surface of signed metadata: our updater against a repository of which one file was forged.

See `fuzz_surfaces` for what a surface promises.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaigns.fuzzing.forms import JSON, RAW
from campaigns.fuzzing.surfaces import Run, Surface
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from support.sites.update_site import UpdateSite
from tuf.api.metadata import Metadata

from edge_agent.errors import RefusedError
from edge_agent.ports import ObjectKind
from edge_agent.updater.transports.directory import DirectoryTransport

_KEYS = {"root": "root", "targets": "root", "releases-linear": "releases"}


class ForgedCarrier:
    """Brings a repository in which some objects are others."""

    def __init__(self, repository: Path) -> None:
        self.forged: dict[str, bytes] = {}
        self._inner = DirectoryTransport(repository)

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        if name not in self.forged:
            return self._inner.read(kind, name, offset, length)
        data = self.forged[name]
        return data[offset : offset + length], len(data)


def _newest(site: UpdateSite) -> dict[str, str]:
    """Return role -> name of the metadata file that a device asks for next."""
    folder = site.repository / "metadata"
    found = {"timestamp": "timestamp.json", "root": "2.root.json"}
    for path in sorted(folder.glob("*.json"), key=_number):
        if path.name.count(".") == 2 and not path.name.endswith(".root.json"):
            found[path.name.split(".")[1]] = path.name
    return found


def _number(path: Path) -> int:
    version = path.name.partition(".")[0]
    return int(version) if version.isdecimal() else 0


def _open(folder: Path, forge: Callable[[UpdateSite, bytes], tuple[str, bytes]]) -> Run:
    site = UpdateSite(folder)
    release = site.release("1.0.0")
    site.start("1.0.0")
    carrier = ForgedCarrier(site.repository)

    def run(data: bytes) -> None:
        name, forged = forge(site, data)
        carrier.forged = {name: forged}
        shutil.rmtree(site.state.tuf)
        site.state.tuf.mkdir()
        site.look(carrier, ready=(release.manifest_sha256,))

    return run


def _signed(site: UpdateSite, data: bytes) -> tuple[str, bytes]:
    """The bytes are what some role says, signed with its true key where they can be: a malicious signer's work."""
    try:
        said: Any = json.loads(data)
        metadata: Metadata[Any] = Metadata.from_bytes(b'{"signatures":[],"signed":%s}' % data)
        payload = metadata.signed_bytes
    except Exception:
        return "timestamp.json", b'{"signatures":[],"signed":%s}' % data
    kind = said["_type"]
    role = kind if kind in ("root", "timestamp", "snapshot") else _delegated(said)
    private = load_pem_private_key((site.fleet.path / "keys" / f"{_KEYS.get(role, role)}.pem").read_bytes(), None)
    signature = CryptoSigner(private).sign(payload)  # type: ignore[arg-type]
    whole = {"signatures": [{"keyid": signature.keyid, "sig": signature.signature}], "signed": said}
    return _newest(site)[role], json.dumps(whole).encode()


def _delegated(said: Any) -> str:
    if said.get("delegations"):
        return "targets"
    return "rollouts" if any("channels/" in path for path in said["targets"]) else "releases-linear"


def _raw(site: UpdateSite, data: bytes) -> tuple[str, bytes]:
    """The first byte chooses the file, the others are its content: what whoever sits on the wire can do."""
    names = sorted(_newest(site).values())
    return names[data[0] % len(names) if data else 0], data[1:]


def _seeds(make: Callable[[int, bytes], bytes]) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        site = UpdateSite(Path(folder))
        site.release("1.0.0")
        site.start("1.0.0")
        names = sorted(_newest(site).values())
        paths = [site.repository / "metadata" / name for name in names]
        return [make(index, path.read_bytes()) for index, path in enumerate(paths) if path.exists()]


REPOSITORY = (
    Surface(
        name="signed-metadata",
        open=lambda folder: _open(folder, _signed),
        seeds=lambda: _seeds(lambda _, data: json.dumps(json.loads(data)["signed"]).encode()),
        refusals=(RefusedError,),
        form=JSON,
    ),
    Surface(
        name="raw-metadata",
        open=lambda folder: _open(folder, _raw),
        seeds=lambda: _seeds(lambda index, data: bytes([index]) + data),
        refusals=(RefusedError,),
        form=RAW,
    ),
)
