"""Turning a bundle into a signed release, and what a family allows: floor and revocations.

The bundle's bytes are checked against its manifest here, on the engineers' side, so that a damaged bundle is never
signed; devices check again, trusting only the signed manifest.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import msgspec
from tuf.api.metadata import Targets

from edge_contracts.channel import Family, family_target, manifest_target, next_serial, parse_family
from edge_contracts.codec import Record, convert, encode
from edge_contracts.delta import Deltas, deltas_target, parse_deltas
from edge_contracts.limits import MAX_MANIFEST_BYTES
from edge_contracts.manifest import MANIFEST_NAME, FileEntry, Manifest, parse_manifest
from edge_contracts.names import SHA256_PATTERN, Name, Sha256, Version, version_key
from edge_contracts.pipeline import check_contents
from edge_fleet.errors import FleetError, KeyMissingError, ReleaseError
from edge_fleet.releases.bill_of_materials import bill_of_materials
from edge_fleet.releases.deltas.build import DeltaPlan, make_deltas
from edge_fleet.signing.repository import FleetRepository
from edge_fleet.signing.roles import releases_paths, releases_role
from edge_fleet.signing.workspace import FleetWorkspace
from edge_io.durable_files import make_folder, replacing, write_file

THREE_BEFORE = DeltaPlan()
"""The deltas made unless something else is asked for."""


class Released(Record, frozen=True, kw_only=True):
    """A release that is in the repository. `new` is false when exactly these bytes had been released before.
    `hint` says what keeps deltas from being signed, if something does."""

    model: Name
    version: Version
    manifest_sha256: Sha256
    files: int
    bytes: int
    new: bool
    deltas: int = 0
    delta_bytes: int = 0
    hint: str | None = None


def release(fleet: FleetWorkspace, bundle: Path, now: datetime, plan: DeltaPlan = THREE_BEFORE) -> Released:
    """Check a bundle folder, copy its files into the blobs and sign its manifest as a release of its family, with
    deltas from the releases before it as `plan` says.

    Raises ContractError for a malformed manifest or a pipeline whose node does not fit, ReleaseError naming the file
    that differs from it or the version that exists with other bytes, KeyMissingError naming the key or the command a
    new family needs.
    """
    data, manifest = read_bundle(bundle)
    for entry in manifest.files:
        for _ in _verified_pieces(bundle, entry, manifest.chunk_size):
            pass
    check_contents(manifest, lambda path: b"".join(_verified_pieces(bundle, manifest.file(path), manifest.chunk_size)))
    repository = fleet.read(now)
    roles = _roles_to_sign(repository, manifest.name)
    fleet.check_keys(repository, roles)
    _is_released(repository, manifest, data)
    for entry in manifest.files:
        _store_blob(fleet.repository, bundle, entry, manifest.chunk_size)
    barred = manifest.name in repository.families() and not _may_sign_deltas(repository, manifest.name)
    olds = _releases_before(repository, manifest, 0 if barred else plan.releases)
    deltas = make_deltas(fleet.repository, data, manifest, olds, plan.codec)
    with fleet.change(now, roles) as changing:
        new = not _is_released(changing, manifest, data)
        if new:
            _sign_release(changing, manifest, data)
        _sign_deltas(changing, deltas)
    _write_bill(fleet, manifest, hashlib.sha256(data).hexdigest())
    return Released(
        model=manifest.name,
        version=manifest.version,
        manifest_sha256=hashlib.sha256(data).hexdigest(),
        files=len(manifest.files),
        bytes=manifest.total_bytes,
        new=new,
        deltas=len(deltas.deltas),
        delta_bytes=sum(delta.size for delta in deltas.deltas),
        hint=f"on the machine with the root key: edgewright fleet family add DIR {manifest.name}" if barred else None,
    )


def add_family(fleet: FleetWorkspace, family: str, now: datetime, key: str | None = None) -> None:
    """Delegate a new model family to the named key, or to those who sign the other families. Needs the root key.

    A family from before there were deltas may sign them from then on. Raises FleetError if it exists and may already.
    """
    convert(family, Name, what="family")
    known = fleet.read(now)
    if _may_sign_deltas(known, family):
        raise FleetError("this family exists", subject=family)
    with fleet.change(now, [Targets.type]) as repository:
        if family in known.families():
            repository.set_paths(releases_role(family), releases_paths(family))
            return
        keys, threshold = repository.release_signers() if key is None else ([fleet.keys.public(key)], 1)
        repository.delegate(releases_role(family), releases_paths(family), keys, threshold)


def set_floor(fleet: FleetWorkspace, family: str, version: str, now: datetime) -> Family:
    """Set the oldest version any device may install. Raises FleetError if no release would be left to run."""
    convert(version, Version, what="version")
    with fleet.change(now, _existing(fleet, family, now)) as repository:
        reachable = [known for known in versions(repository, family) if version_key(known) >= version_key(version)]
        if not reachable:
            raise FleetError(f"no release of {family} is {version} or newer", subject="minimum_version")
        return _change_family(repository, family, minimum_version=version)


def revoke(fleet: FleetWorkspace, family: str, version: str, now: datetime) -> Family:
    """Forbid one release on every device, named by its version, or by its manifest's SHA-256 if it is not ours.

    Raises FleetError if there is no such version.
    """
    with fleet.change(now, _existing(fleet, family, now)) as repository:
        digest = version if re.fullmatch(SHA256_PATTERN, version) else manifest_hash(repository, family, version)
        revoked = read_family(repository, family).revoked
        return _change_family(repository, family, revoked=tuple(dict.fromkeys((*revoked, digest))))


def read_family(repository: FleetRepository, family: str) -> Family:
    """Return a family's document. Raises FleetError if nothing was released yet."""
    role = releases_role(family)
    data = repository.read_target(role, family_target(family)) if family in repository.families() else None
    if data is None:
        known = ", ".join(repository.families()) or "none"
        raise FleetError(f"no releases in this family (families: {known})", subject=family)
    return parse_family(data)


def versions(repository: FleetRepository, family: str) -> list[str]:
    """Return the released versions of a family, oldest first."""
    if family not in repository.families():
        return []
    paths = [path.split("/") for path in repository.targets(releases_role(family)).targets]
    return sorted((parts[2] for parts in paths if parts[3:] == [MANIFEST_NAME]), key=version_key)


def manifests(repository: FleetRepository) -> dict[str, Manifest]:
    """Return the manifest of every release, by its SHA-256."""
    found = {}
    for family in repository.families():
        for version in versions(repository, family):
            data = repository.read_target(releases_role(family), manifest_target(family, version))
            if data is not None:
                found[hashlib.sha256(data).hexdigest()] = parse_manifest(data)
    return found


def manifest_hash(repository: FleetRepository, family: str, version: str) -> str:
    """Return the SHA-256 of a release's manifest. Raises FleetError naming the versions there are."""
    if version not in versions(repository, family):
        known = ", ".join(versions(repository, family)) or "none"
        raise FleetError(f"not released (released: {known})", subject=f"{family} {version}")
    digest = repository.target_hash(releases_role(family), manifest_target(family, version))
    assert digest is not None
    return digest


def blob_path(repository: Path, digest: str) -> Path:
    """Return where the repository keeps the bytes of that SHA-256."""
    return repository / "blobs" / digest[:2] / digest


def read_bundle(bundle: Path) -> tuple[bytes, Manifest]:
    """Return the manifest's bytes as they are hashed, and parsed. Raises ReleaseError or ContractError."""
    with _open_inside(bundle, MANIFEST_NAME) as file:
        data = file.read(MAX_MANIFEST_BYTES + 1)
    return data, parse_manifest(data)


def _write_bill(fleet: FleetWorkspace, manifest: Manifest, manifest_sha256: str) -> None:
    """Write the release's bill of materials beside the repository. It can be made again at any time."""
    folder = fleet.path / "sboms"
    make_folder(folder)
    text = msgspec.json.format(msgspec.json.encode(bill_of_materials(manifest, manifest_sha256)), indent=1)
    write_file(folder / f"{manifest.name}-{manifest.version}.cdx.json", text + b"\n")


def _is_released(repository: FleetRepository, manifest: Manifest, data: bytes) -> bool:
    if manifest.version not in versions(repository, manifest.name):
        return False
    if manifest_hash(repository, manifest.name, manifest.version) != hashlib.sha256(data).hexdigest():
        raise ReleaseError(
            "this version is already released with different contents, and releases are immutable",
            subject=f"{manifest.name} {manifest.version}",
            hint="give the bundle a new version",
        )
    return True


def _sign_release(repository: FleetRepository, manifest: Manifest, data: bytes) -> None:
    family, role = manifest.name, releases_role(manifest.name)
    if family not in repository.families():
        repository.delegate(role, releases_paths(family), *repository.release_signers())
    if repository.target_hash(role, family_target(family)) is None:
        repository.put_target(role, family_target(family), encode(Family(model=family, serial=1)))
    repository.put_target(role, manifest_target(family, manifest.version), data)


def _releases_before(repository: FleetRepository, manifest: Manifest, count: int) -> list[Manifest]:
    """Return the manifests of the newest `count` releases older than this one, newest first."""
    key = version_key(manifest.version)
    older = [version for version in versions(repository, manifest.name) if version_key(version) < key]
    role = releases_role(manifest.name)
    data = [repository.read_target(role, manifest_target(manifest.name, version)) for version in older[::-1][:count]]
    return [parse_manifest(found) for found in data if found is not None]


def _may_sign_deltas(repository: FleetRepository, family: str) -> bool:
    return repository.may_sign(releases_role(family), deltas_target(family, "0.0.0"))


def _sign_deltas(repository: FleetRepository, deltas: Deltas) -> None:
    """List the deltas, if there are any and they are not listed already."""
    role, path = releases_role(deltas.model), deltas_target(deltas.model, deltas.version)
    data = encode(deltas)
    parse_deltas(data)
    if deltas.deltas and repository.target_hash(role, path) != hashlib.sha256(data).hexdigest():
        repository.put_target(role, path, data)


def _roles_to_sign(repository: FleetRepository, family: str) -> list[str]:
    if family in repository.families():
        return [releases_role(family)]
    try:
        repository.require([Targets.type])
    except KeyMissingError as error:
        raise KeyMissingError(
            f"{family!r} is a new family; adding it needs the root key",
            subject=error.subject,
            hint=f"on the machine with the root key: edgewright fleet family add DIR {family}",
        ) from error
    return [Targets.type]


def _existing(fleet: FleetWorkspace, family: str, now: datetime) -> list[str]:
    read_family(fleet.read(now), family)
    return [releases_role(family)]


def _change_family(repository: FleetRepository, family: str, **changes: object) -> Family:
    before = read_family(repository, family)
    after = msgspec.structs.replace(before, serial=next_serial(before.serial), **changes)
    data = encode(after)
    parse_family(data)
    repository.put_target(releases_role(family), family_target(family), data)
    return after


def _store_blob(repository: Path, bundle: Path, entry: FileEntry, chunk_size: int) -> None:
    destination = blob_path(repository, entry.sha256)
    if destination.exists() and destination.stat().st_size == entry.size:
        destination.touch()  # young again: garbage collection leaves it alone until it is signed
        return
    make_folder(destination.parent)
    with replacing(destination) as file:
        for piece in _verified_pieces(bundle, entry, chunk_size):
            file.write(piece)


def _verified_pieces(bundle: Path, entry: FileEntry, chunk_size: int) -> Iterator[bytes]:
    """Yield a file's chunks, each checked. Raises ReleaseError naming the file where it differs."""
    subject = entry.path
    whole = hashlib.sha256()
    with _open_inside(bundle, entry.path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry.size:
            raise ReleaseError(f"{size} bytes, the manifest says {entry.size}", subject=subject)
        for index, expected in enumerate(entry.chunks):
            piece = file.read(chunk_size)
            if hashlib.sha256(piece).hexdigest() != expected:
                raise ReleaseError(f"chunk {index} differs from the manifest", subject=subject)
            whole.update(piece)
            yield piece
    if whole.hexdigest() != entry.sha256:
        raise ReleaseError("differs from the manifest", subject=subject)


def _open_inside(bundle: Path, path: str) -> BinaryIO:
    """Open a regular file below `bundle` without following a symbolic link at any step. Raises ReleaseError."""
    *folders, name = path.split("/")
    try:
        place = os.open(bundle, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ReleaseError(f"not a bundle folder: {error.strerror}", subject=str(bundle)) from error
    try:
        for folder in folders:
            inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            os.close(place)
            place = inner
        file = os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place), "rb")
    except OSError as error:
        raise ReleaseError(f"not a regular file of the bundle: {error.strerror}", subject=path) from error
    finally:
        os.close(place)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ReleaseError("not a regular file", subject=path)
    return file
