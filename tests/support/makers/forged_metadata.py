"""An attacker with a copy of the repository and with some of its keys: writes what the attacker wants it to say.

forged = Forger(site, folder)                  a copy of the fleet's repository, with the keys of the site's fleet
forged.list_target("rollouts", path, data, key="releases")
forged.publish()                               snapshot and timestamp signed anew with their own keys
forged.publish(version=2**31)                  the same as a fast-forward
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from support.sites.fleet_site import Site
from support.sites.update_site import UpdateSite
from tuf.api.metadata import Metadata, MetaFile, TargetFile

from edge_fleet.signing.repository import hashed_path


class Forger:
    """See the module. `folder` is the forged repository, `keys` the folder of the stolen keys."""

    def __init__(self, site: Site | UpdateSite, folder: Path, keys: Path | None = None) -> None:
        shutil.copytree(site.repository, folder)
        self.folder = folder
        self._keys = keys or site.repository.parent / "keys"
        self._changed: dict[str, int] = {}

    def read(self, role: str) -> Metadata[Any]:
        """Return the newest metadata of a role."""
        return Metadata.from_file(str(self._newest(role)))

    def edit(self, role: str, change: Callable[[Any], None], *, key: str, version: int | None = None) -> None:
        """Change a role's metadata, raise its version by one or to `version`, and sign it with the named key alone."""
        metadata = self.read(role)
        change(metadata.signed)
        metadata.signed.version = metadata.signed.version + 1 if version is None else version
        metadata.signatures.clear()
        metadata.sign(self._signer(key))
        name = "timestamp.json" if role == "timestamp" else f"{metadata.signed.version}.{role}.json"
        metadata.to_file(str(self.folder / "metadata" / name))
        self._changed[role] = metadata.signed.version

    def list_target(self, role: str, path: str, data: bytes, *, key: str, version: int | None = None) -> None:
        """Write a target and list it in a role, whether the role may sign that path or not."""
        entry = TargetFile.from_data(path, data, ["sha256"])
        place = self.folder / "targets" / hashed_path(path, entry.hashes["sha256"])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        self.edit(role, lambda signed: signed.targets.__setitem__(path, entry), key=key, version=version)

    def publish(self, *, expires: datetime | None = None, version: int | None = None) -> None:
        """Sign a snapshot of what was changed and a timestamp, with the online keys; `expires` is the timestamp's."""
        changed = {f"{role}.json": MetaFile(number) for role, number in self._changed.items()}
        self.edit("snapshot", lambda signed: signed.meta.update(changed), key="snapshot", version=version)

        def stamp(signed: Any) -> None:
            signed.snapshot_meta = MetaFile(self._changed["snapshot"])
            if expires is not None:
                signed.expires = expires.astimezone(UTC).replace(microsecond=0)

        self.edit("timestamp", stamp, key="timestamp", version=version)

    def _newest(self, role: str) -> Path:
        if role == "timestamp":
            return self.folder / "metadata" / "timestamp.json"
        found = (self.folder / "metadata").glob(f"*.{role}.json")
        return max(found, key=lambda path: int(path.name.partition(".")[0]))

    def _signer(self, key: str) -> CryptoSigner:
        private = load_pem_private_key((self._keys / f"{key}.pem").read_bytes(), password=None)
        return CryptoSigner(private)
