"""The signed repository: TUF metadata and targets in a public folder, built on python-tuf's repository interface.

Roles: root; targets (signed by the root keys, delegates and holds nothing itself); rollouts (`channels/*`, `jobs/*`);
one `releases-<family>` for each model family; snapshot; timestamp. Delegations are terminating: nobody else may
answer for their paths. What is current is what timestamp.json names, by way of its snapshot, so a change becomes
visible in one rename, and an interrupted one is invisible and is simply written again.

One object serves one change at one time (`now`); the lock around it is in `edge_fleet.signing.workspace`. What the
targets say is decided in `release` and `edge_fleet.rollouts.channel_state`; blobs are copied by `release`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.repository import Repository

from edge_fleet.errors import FleetError, RepositoryError
from edge_fleet.signing.keys import RELEASES, KeyRing, sign
from edge_fleet.signing.metadata import read_metadata
from edge_fleet.signing.roles import Lifetimes, delegate, delegated, family_roles, family_signers
from edge_io.durable_files import make_folder, write_file


class FleetRepository(Repository):
    """One reading of, or one change to, the repository in `folder`.

    Edits stay in memory until `publish`, which signs what depends on them and writes everything, timestamp last.
    """

    def __init__(self, folder: Path, keys: KeyRing, lifetimes: Lifetimes, now: datetime) -> None:
        self.folder = folder
        self._keys = keys
        self._lifetimes = lifetimes
        self._now = now
        self._pending: dict[str, Metadata[Any]] = {}

    # python-tuf's interface

    def open(self, role: str) -> Metadata[Any]:
        """Return a role's current or edited metadata, or an empty version 0. Raises RepositoryError if damaged."""
        if role in self._pending:
            return deepcopy(self._pending[role])
        path = self._current_path(role)
        return _empty(role) if path is None else read_metadata(path)

    def close(self, role: str, md: Metadata[Any]) -> None:
        """Sign edited metadata with the next version and a new expiry and keep it for `publish`."""
        if role not in self._pending:
            md.signed.version += 1
        md.signed.expires = (self._now + self._lifetimes.of(role)).replace(microsecond=0)
        root = md.signed if isinstance(md.signed, Root) else self.root()
        keys, threshold = self._authority(role, root)
        md.signatures.clear()
        sign(md, self._keys.signers(role, keys, threshold))
        self._pending[role] = md

    @property
    def targets_infos(self) -> dict[str, MetaFile]:
        """The versions the next snapshot names."""
        found = {}
        for role in self.target_roles():
            version = self.open(role).signed.version
            if version:
                found[f"{role}.json"] = MetaFile(version)
        return found

    @property
    def snapshot_info(self) -> MetaFile:
        """The version the next timestamp names."""
        return MetaFile(self.open(Snapshot.type).signed.version)

    # what the rest of the fleet side asks

    @property
    def exists(self) -> bool:
        """Whether anything was published here."""
        return (self.folder / "metadata" / "timestamp.json").exists()

    def target_roles(self) -> list[str]:
        """Return targets and the roles it delegates to."""
        return [Targets.type, *delegated(self.targets())]

    def roles(self) -> list[str]:
        """Return every role, root first."""
        return [Root.type, *self.target_roles(), Snapshot.type, Timestamp.type]

    def families(self) -> list[str]:
        """Return the model families that have a role."""
        return [role.removeprefix(f"{RELEASES}-") for role in family_roles(self.targets())]

    def require(self, roles: Iterable[str]) -> None:
        """Raise KeyMissingError or KeyExposedError unless every role can be signed here: asked before a change."""
        for role in roles:
            keys, threshold = self._authority(role, self.root())
            self._keys.signers(role, keys, threshold)

    def keys_at_hand(self, role: str) -> tuple[list[str], int]:
        """Return the names of the keys here that may sign `role`, and how many it takes."""
        keys, threshold = self._authority(role, self.root())
        return self._keys.at_hand([key.keyid for key in keys]), threshold

    def is_signed(self, role: str) -> bool:
        """Whether those who may sign `role` now have signed it; so has one that was never published."""
        metadata = self.open(role)
        delegator = self.targets() if role in delegated(self.targets()) else self.root()
        if not metadata.signed.version:
            return True
        return bool(delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures))

    def delegate(self, role: str, paths: list[str], keys: Sequence[Key], threshold: int = 1) -> None:
        """Let `threshold` of `keys` sign `paths` as `role`."""
        with self.edit_targets() as targets:
            delegate(targets, role, paths, keys, threshold)

    def set_paths(self, role: str, paths: list[str]) -> None:
        """Let those who sign a delegated role sign `paths`, and no others."""
        with self.edit_targets() as targets:
            delegated(targets)[role].paths = paths

    def may_sign(self, role: str, path: str) -> bool:
        """Return whether the role exists and `path` is delegated to it."""
        found = delegated(self.targets()).get(role)
        return found is not None and found.is_delegated_path(path)

    def release_signers(self) -> tuple[Sequence[Key], int]:
        """Return who signs a new family: whoever signs the others, or the releases key. Raises FleetError."""
        return family_signers(self.targets()) or ([self._keys.public(RELEASES)], 1)

    def adopt(self, role: str, metadata: Metadata[Any]) -> None:
        """Keep metadata that others have signed for `publish`, in place of what is current."""
        self._pending[role] = metadata

    def put_target(self, role: str, path: str, data: bytes) -> None:
        """Write a target under its hash and list it in `role`. Raises FleetError if the role may not sign the path."""
        if not self.may_sign(role, path):
            raise FleetError(f"role {role!r} may not sign this path", subject=path)
        entry = TargetFile.from_data(path, data, ["sha256"])
        destination = self.folder / "targets" / hashed_path(path, entry.hashes["sha256"])
        make_folder(destination.parent)
        write_file(destination, data)
        with self.edit_targets(role) as targets:
            targets.targets[path] = entry

    def target_hash(self, role: str, path: str) -> str | None:
        """Return the SHA-256 a role lists for a path, or None."""
        entry = self.targets(role).targets.get(path)
        return None if entry is None else str(entry.hashes["sha256"])

    def read_target(self, role: str, path: str) -> bytes | None:
        """Return a target's bytes, checked against its hash, or None. Raises RepositoryError if damaged."""
        digest = self.target_hash(role, path)
        if digest is None:
            return None
        place = self.folder / "targets" / hashed_path(path, digest)
        try:
            data = place.read_bytes()
        except OSError as error:
            raise RepositoryError("listed in the metadata but not readable", subject=str(place)) from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise RepositoryError("does not match the signed hash", subject=str(place))
        return data

    def publish(self) -> None:
        """Make every edit visible at once: sign snapshot and timestamp over them, write all, timestamp last."""
        self.do_snapshot()
        self.do_timestamp()
        folder = self.folder / "metadata"
        make_folder(folder)
        for role, metadata in sorted(self._pending.items(), key=lambda item: _write_order(item[0])):
            name = f"{role}.json" if role == Timestamp.type else f"{metadata.signed.version}.{role}.json"
            write_file(folder / name, metadata.to_bytes())
        self._pending.clear()

    def refresh(self, roles: Iterable[str]) -> None:
        """Sign the given roles again, unchanged, for a new lifetime."""
        for role in roles:
            with self.edit(role):
                pass

    def current_files(self) -> list[Path]:
        """Return the metadata files a client may need now, in an order that is safe to copy: timestamp last."""
        roots = [path for _, path in sorted(_root_versions(self.folder / "metadata"))]
        current = [self._current_path(role) for role in (*self.target_roles(), Snapshot.type, Timestamp.type)]
        return roots + [path for path in current if path is not None]

    def _current_path(self, role: str) -> Path | None:
        folder = self.folder / "metadata"
        if role == Root.type:
            return max(_root_versions(folder), default=(0, None))[1]
        if not self.exists:
            return None
        timestamp = folder / "timestamp.json"
        if role == Timestamp.type:
            return timestamp
        snapshot = folder / f"{read_metadata(timestamp).signed.snapshot_meta.version}.snapshot.json"
        if role == Snapshot.type:
            return snapshot
        listed = read_metadata(snapshot).signed.meta.get(f"{role}.json")
        return None if listed is None else folder / f"{listed.version}.{role}.json"

    def _authority(self, role: str, root: Root) -> tuple[list[Key], int]:
        known: dict[str, Key] = root.keys
        listed: Role | None = root.roles.get(role)
        if listed is None:
            delegations = self.targets().delegations
            listed = delegated(self.targets()).get(role)
            if delegations is None or listed is None:
                raise FleetError("no such role", subject=role)
            known = delegations.keys
        return [known[keyid] for keyid in listed.keyids], listed.threshold


def hashed_path(path: str, digest: str) -> str:
    """Return the path of a target's file: its hash before the last part (TUF consistent snapshots)."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{digest}.{name}" if folder else f"{digest}.{name}"


def _empty(role: str) -> Metadata[Any]:
    kinds: dict[str, type[Root | Snapshot | Timestamp]] = {
        Root.type: Root,
        Snapshot.type: Snapshot,
        Timestamp.type: Timestamp,
    }
    metadata: Metadata[Any] = Metadata(kinds.get(role, Targets)())
    metadata.signed.version = 0
    return metadata


def _root_versions(folder: Path) -> list[tuple[int, Path]]:
    names = [(path.name.partition(".")[0], path) for path in folder.glob("*.root.json")]
    return [(int(number), path) for number, path in names if number.isdigit()]


def _write_order(role: str) -> tuple[int, str]:
    """Root and timestamp last, together: between the two a device may see a root whose timestamp is not signed yet."""
    order = {Targets.type: 0, Snapshot.type: 2, Root.type: 3, Timestamp.type: 4}
    return order.get(role, 1), role
