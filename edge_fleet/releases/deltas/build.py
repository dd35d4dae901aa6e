"""The deltas towards a release: which files against which older ones, made, kept as blobs and listed for signing.

A delta is kept only if it spares a device enough. Nothing depends on one: a release without any is as good. The bytes
of a delta are made in `edge_fleet.releases.deltas.encoder`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

from msgspec import Meta

from edge_contracts.codec import StrictRecord
from edge_contracts.delta import Codec, DeltaEntry, Deltas
from edge_contracts.limits import MAX_DELTAS
from edge_contracts.manifest import FileEntry, Manifest
from edge_contracts.names import Sha256
from edge_fleet.errors import RepositoryError
from edge_fleet.objects import locate
from edge_io.durable_files import make_folder, write_file

MIN_BYTES = 8192
"""Files below are not worth a request of their own."""

MAX_BYTES = 512 * 1024 * 1024
"""Files above are not compared: both are read as a whole, and a delta is held in memory while it is made."""

MAX_SHARE = 0.9
"""A delta of more than this share of its file is not kept."""


class DeltaPlan(StrictRecord, frozen=True, kw_only=True):
    """Against how many of the releases before it deltas of a release are made, and what compresses them."""

    releases: Annotated[int, Meta(ge=0, le=64)] = 3
    codec: Codec = "zstd"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A file of the release and an older one that devices may have."""

    target: FileEntry
    base: FileEntry


def make_deltas(repository: Path, data: bytes, manifest: Manifest, olds: Sequence[Manifest], codec: Codec) -> Deltas:
    """Return the deltas towards the release whose manifest has the bytes `data`; store their bytes as blobs.

    Raises RepositoryError if a blob of an older release is missing or damaged, FleetError for a codec that is not
    installed.
    """
    found = []
    for pair in _pairs(manifest, olds):
        entry = _make(repository, pair, manifest.chunk_size, codec)
        if entry is not None:
            found.append(entry)
    return Deltas(
        model=manifest.name,
        version=manifest.version,
        manifest_sha256=hashlib.sha256(data).hexdigest(),
        chunk_size=manifest.chunk_size,
        deltas=tuple(found[:MAX_DELTAS]),
    )


def _pairs(manifest: Manifest, olds: Sequence[Manifest]) -> list[Pair]:
    """Return what is to be compared: each new file with its like in each older release, each two files once."""
    held = {entry.sha256 for old in olds for entry in old.files}
    found: dict[tuple[Sha256, Sha256], Pair] = {}
    for target in manifest.files:
        if target.sha256 in held or not MIN_BYTES <= target.size <= MAX_BYTES:
            continue
        for old in olds:
            base = _like(target, old)
            if base is not None:
                found.setdefault((target.sha256, base.sha256), Pair(target=target, base=base))
    return list(found.values())


def _like(target: FileEntry, old: Manifest) -> FileEntry | None:
    """Return the older release's file of the same path, or else of the same kind and nearest in size."""
    same = [entry for entry in old.files if entry.path == target.path]
    kind = PurePosixPath(target.path).suffix
    alike = [entry for entry in old.files if PurePosixPath(entry.path).suffix == kind]
    known = [entry for entry in same or alike if entry.size <= MAX_BYTES]
    return min(known, key=lambda entry: abs(entry.size - target.size), default=None)


def _make(repository: Path, pair: Pair, chunk_size: int, codec: Codec) -> DeltaEntry | None:
    from edge_fleet.releases.deltas.encoder import encode_delta  # numpy: only who releases pays for it

    data = encode_delta(_read(repository, pair.base), _read(repository, pair.target), codec)
    if len(data) > MAX_SHARE * pair.target.size:
        return None
    digest = hashlib.sha256(data).hexdigest()
    place = repository / locate("blob", digest)
    make_folder(place.parent)
    if not place.exists():
        write_file(place, data)
    chunks = (data[start : start + chunk_size] for start in range(0, len(data), chunk_size))
    return DeltaEntry(
        target=pair.target.sha256,
        base=pair.base.sha256,
        codec=codec,
        size=len(data),
        sha256=digest,
        chunks=tuple(hashlib.sha256(chunk).hexdigest() for chunk in chunks),
    )


def _read(repository: Path, entry: FileEntry) -> bytes:
    """Return the bytes of a blob. Raises RepositoryError unless they have the hash of its name."""
    place = repository / locate("blob", entry.sha256)
    try:
        data = place.read_bytes()
    except OSError as error:
        raise RepositoryError("named in signed metadata but missing here", subject=str(place)) from error
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise RepositoryError("does not match the hash in its name", subject=str(place))
    return data
