"""What a device downloads for a release: the files that it does not have, by the smallest delta where one fits."""

from __future__ import annotations

from edge_contracts.channel import manifest_target
from edge_contracts.delta import Deltas, deltas_target, parse_deltas
from edge_contracts.manifest import Manifest, parse_manifest
from edge_fleet.releases.release import manifest_hash, manifests
from edge_fleet.signing.repository import FleetRepository
from edge_fleet.signing.roles import releases_role


class DownloadSizes:
    """The bytes of files towards one release; metadata, some kilobytes, is not counted.

    A device that has room for it and can decompress it takes a delta. Raises FleetError if there is no such release.
    """

    def __init__(self, repository: FleetRepository, model: str, version: str) -> None:
        manifest_hash(repository, model, version)
        role = releases_role(model)
        data = repository.read_target(role, manifest_target(model, version))
        assert data is not None  # its hash is known
        listed = repository.read_target(role, deltas_target(model, version))
        self._manifest = parse_manifest(data)
        self._deltas = None if listed is None else parse_deltas(listed)
        self._older = manifests(repository)
        self._known: dict[str | None, int] = {}

    @property
    def whole(self) -> int:
        """What a device downloads that has none of it."""
        return self.of(None)

    def of(self, serving: str | None) -> int:
        """Return what a device downloads that has the release with this manifest's SHA-256, None for none of ours."""
        if serving not in self._known:
            self._known[serving] = bytes_between(
                None if serving is None else self._older.get(serving), self._manifest, self._deltas
            )
        return self._known[serving]


def bytes_between(held: Manifest | None, wanted: Manifest, deltas: Deltas | None) -> int:
    """Return the bytes of `wanted` that a device downloads which has the files of `held`."""
    here = set() if held is None else {entry.sha256 for entry in held.files}
    missing = {entry.sha256: entry.size for entry in wanted.files if entry.sha256 not in here}
    for delta in () if deltas is None else deltas.deltas:
        if delta.base in here and delta.size < missing.get(delta.target, 0):
            missing[delta.target] = delta.size
    return sum(missing.values())
