"""Copying the repository to a folder that travels: a USB stick, a site mirror, a web server's root.

The copy has the repository's own layout and needs no trust: a device verifies it like any carrier. It is written in
the order blobs, targets, metadata, timestamp, so a stick pulled out early holds an older consistent state or none.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from edge_contracts.channel import parse_channel
from edge_contracts.codec import Record
from edge_contracts.delta import parse_deltas
from edge_contracts.manifest import parse_manifest
from edge_fleet.errors import FleetError, RepositoryError
from edge_fleet.releases.release import blob_path
from edge_fleet.signing.keys import RELEASES
from edge_fleet.signing.repository import FleetRepository, hashed_path
from edge_fleet.signing.workspace import FleetWorkspace
from edge_io.durable_files import make_folder, replacing

PIECE_BYTES = 1024 * 1024
"""Copied at a time."""


MEDIA = (Path("/media"), Path("/mnt"), Path("/run/media"))
"""Where media are mounted."""


def not_mounted(out: Path, media: Sequence[Path] = MEDIA) -> bool:
    """Return whether a folder lies where media are mounted, and none is there."""
    folder = out.resolve()
    places = (folder, *folder.parents)
    place = next((place for place in media if place in places), None)
    return place is not None and not any(above.is_mount() for above in places[: places.index(place)])


class Item(Record, frozen=True, kw_only=True):
    """One file to copy, below the repository: by its hash, or, where it may change meanwhile, by its bytes."""

    path: str
    size: int
    sha256: str | None = None
    data: bytes | None = None


class Exported(Record, frozen=True, kw_only=True):
    """What an export holds and what of it had to be copied."""

    files: int
    bytes: int
    copied: int


def export(
    fleet: FleetWorkspace, out: Path, model: str | None, now: datetime, progress: Callable[[int, int], None]
) -> Exported:
    """Copy what is current (for one model, or for all) to `out`; what an earlier export left there is kept.

    `progress` is told bytes done and in total. Raises FleetError if `out` holds something else or the model is not
    known, RepositoryError naming a damaged file.
    """
    if out.exists() and any(out.iterdir()) and not (out / "metadata").is_dir():
        raise FleetError("folder contains files that are not an export", subject=str(out))
    with fleet.hold(now) as repository:
        if model is not None and model not in repository.families():
            known = ", ".join(repository.families()) or "none"
            raise FleetError(f"no such model family (families: {known})", subject=model)
        items = [*contents(repository, model), *_metadata(repository)]
    total = sum(item.size for item in items)
    done = copied = 0
    for item in items:
        copied += _copy(fleet.repository / item.path, out / item.path, item)
        done += item.size
        progress(done, total)
    return Exported(files=len(items), bytes=total, copied=copied)


def contents(repository: FleetRepository, model: str | None) -> Iterator[Item]:
    """Yield what signed metadata names, for one model or for all: blobs before the targets that name them."""
    blobs: dict[str, Item] = {}
    targets: list[Item] = []
    for role, path in _wanted(repository, model):
        data = repository.read_target(role, path)
        digest = repository.target_hash(role, path)
        assert data is not None
        assert digest is not None
        targets.append(Item(path=f"targets/{hashed_path(path, digest)}", size=len(data), sha256=digest))
        if path.endswith("/manifest.json"):
            for entry in parse_manifest(data).files:
                place = blob_path(Path(), entry.sha256).as_posix()
                blobs[entry.sha256] = Item(path=place, size=entry.size, sha256=entry.sha256)
        elif path.endswith("/deltas.json"):
            for delta in parse_deltas(data).deltas:
                place = blob_path(Path(), delta.sha256).as_posix()
                blobs[delta.sha256] = Item(path=place, size=delta.size, sha256=delta.sha256)
    yield from blobs.values()
    yield from targets


def _wanted(repository: FleetRepository, model: str | None) -> Iterator[tuple[str, str]]:
    for role in repository.target_roles():
        if role.startswith(f"{RELEASES}-") and model not in (None, role.removeprefix(f"{RELEASES}-")):
            continue
        for path in repository.targets(role).targets:
            if path.startswith("channels/") and model is not None:
                data = repository.read_target(role, path)
                if data is not None and parse_channel(data).model != model:
                    continue
            yield role, path


def _metadata(repository: FleetRepository) -> Iterator[Item]:
    for path in repository.current_files():
        data = path.read_bytes()
        yield Item(path=f"metadata/{path.name}", size=len(data), data=data)


def _copy(source: Path, destination: Path, item: Item) -> bool:
    """Copy durably unless the same is there; return whether it was copied."""
    if _is_same(destination, item):
        return False
    make_folder(destination.parent)
    try:
        with replacing(destination) as out:
            if item.data is None:
                with source.open("rb") as file:
                    shutil.copyfileobj(file, out, PIECE_BYTES)
            else:
                out.write(item.data)
    except FileNotFoundError as error:
        raise RepositoryError("named in signed metadata but missing here", subject=str(source)) from error
    if not _is_same(destination, item):
        destination.unlink()
        raise RepositoryError("does not match the hash in its name", subject=str(source))
    return True


def _is_same(path: Path, item: Item) -> bool:
    if not path.is_file() or path.stat().st_size != item.size:
        return False
    if item.data is not None:
        return path.read_bytes() == item.data
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == item.sha256
