"""Signed metadata for many devices of one process: what each has verified is its own, the verifying is shared.

Signatures are python-tuf's to check, over the very bytes that each device fetched; the same bytes under the same
delegator are checked once in a process, because ten thousand devices on one machine would do little else. What devices
refuse (an old version, an expired role, a wrong hash) each decides for itself, by its own clock.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from edge_agent.errors import ExpiredError, HashMismatchError, MissingTargetError, RolledBackError, SignatureError


class SharedVerifier:
    """The signatures that were checked in this process."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes, int], Metadata[Any]] = {}

    def verified(self, role: str, data: bytes, delegator: Metadata[Any]) -> Metadata[Any]:
        """Return the metadata of `role`. Raises SignatureError unless the delegator's keys signed these bytes."""
        key = (role, hashlib.sha256(data).digest(), id(delegator))
        found = self._known.get(key)
        if found is None:
            try:
                found = Metadata[Any].from_bytes(data)
                delegator.signed.verify_delegate(role, found.signed_bytes, found.signatures)
            except (RepositoryError, ValueError) as error:
                raise SignatureError(str(error), subject=role) from error
            self._known[key] = found
        return found


@dataclass(kw_only=True)
class TrustedMetadata:
    """What one device has verified, by role; `rolled` is the newest version of each that it has seen."""

    verifier: SharedVerifier
    root: Metadata[Root]
    roles: dict[str, Metadata[Any]] = field(default_factory=dict)

    def versions(self) -> dict[str, int]:
        """Return the version of every role verified."""
        return {"root": self.root.signed.version} | {name: role.signed.version for name, role in self.roles.items()}

    def take_root(self, data: bytes) -> None:
        """Take the next root in. Raises SignatureError or RolledBackError."""
        found = self.verifier.verified(Root.type, data, self.root)
        self.verifier.verified(Root.type, data, found)
        if found.signed.version != self.root.signed.version + 1:
            raise RolledBackError(f"version {found.signed.version}", subject=Root.type)
        self.root = found

    def take(self, role: str, data: bytes, delegator: Metadata[Any], info: MetaFile | None, now: float) -> None:
        """Take a role in. Raises a RefusedError: signature, hash, version, expiry at `now` (seconds since 1970)."""
        found = self.verifier.verified(role, data, delegator)
        if info is not None and found.signed.version != info.version:
            raise HashMismatchError(f"version {found.signed.version}, {info.version} is in the snapshot", subject=role)
        known = self.roles.get(role)
        if known is not None and found.signed.version < known.signed.version:
            raise RolledBackError(f"version {found.signed.version}", subject=role)
        self._check_expiry(role, found, now)
        self.roles[role] = found

    def _check_expiry(self, role: str, found: Metadata[Any], now: float) -> None:
        if found.signed.is_expired(datetime.fromtimestamp(now, UTC)):
            raise ExpiredError(f"expired {found.signed.expires}", subject=role)

    def snapshot_info(self) -> MetaFile:
        """Return what the timestamp says of the snapshot."""
        timestamp: Timestamp = self.roles[Timestamp.type].signed
        return timestamp.snapshot_meta

    def info(self, role: str) -> MetaFile:
        """Return what the snapshot says of a role. Raises MissingTargetError if it knows none of that name."""
        snapshot: Snapshot = self.roles[Snapshot.type].signed
        found = snapshot.meta.get(f"{role}.json")
        if found is None:
            raise MissingTargetError("no role of this name in the snapshot", subject=role)
        return found

    def delegate_of(self, target: str) -> str:
        """Return the role that signs a target. Raises MissingTargetError."""
        targets: Targets = self.roles[Targets.type].signed
        delegations = targets.delegations
        for role, _ in delegations.get_roles_for_target(target) if delegations is not None else ():
            return role
        raise MissingTargetError("signed by no role", subject=target)

    def target(self, role: str, target: str) -> TargetFile:
        """Return what a role signs of a target. Raises MissingTargetError."""
        targets: Targets = self.roles[role].signed
        found = targets.targets.get(target)
        if found is None:
            raise MissingTargetError("not signed", subject=target)
        return found


def is_target(info: TargetFile, data: bytes) -> bool:
    """Return whether these bytes are the target that was signed."""
    return len(data) == info.length and hashlib.sha256(data).hexdigest() == info.hashes.get("sha256")
