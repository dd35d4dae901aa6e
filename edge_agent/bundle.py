"""A bundle on disk: opening it, checking that its bytes are the manifest's, and describing a file for a manifest.

Only files the manifest lists are ever opened, by paths checked to stay inside the folder, and never through a
symbolic link. Fetching bundles is in the updater, trying them in `trial`, making them in `edge_compression`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from msgspec import Struct

from edge_contracts import limits
from edge_contracts.errors import BundleError
from edge_contracts.manifest import MANIFEST_NAME, FileEntry, Manifest, Variant, parse_manifest
from edge_contracts.names import check_path


class Bundle(Struct, frozen=True, kw_only=True):
    """A folder with a parsed manifest. `manifest_sha256` identifies the release."""

    folder: Path
    manifest: Manifest
    manifest_sha256: str

    def path(self, name: str) -> Path:
        """Return the path of a file the manifest lists. Raises ContractError if it does not list it."""
        return self.folder / self.manifest.file(name).path

    def model_path(self, variant: Variant) -> Path:
        """Return the path of a variant's model file."""
        return self.path(variant.file)

    def model_sha256(self, variant: Variant) -> str:
        """Return the SHA-256 of a variant's model file, as the manifest pins it."""
        return self.manifest.file(variant.file).sha256

    def check(self, name: str) -> Path:
        """Return the path of a listed file after comparing its bytes with the manifest. Raises BundleError."""
        entry = self.manifest.file(name)
        check_file(self.folder, entry, self.manifest.chunk_size)
        return self.folder / entry.path


def open_bundle(folder: Path, *, verify: bool = True) -> Bundle:
    """Open the bundle in `folder`; with `verify` every listed file's size and hashes are compared.

    Raises BundleError naming the file, or ContractError naming the manifest's field.
    """
    data = _read_bounded(folder, MANIFEST_NAME, limits.MAX_MANIFEST_BYTES)
    manifest = parse_manifest(data)
    if verify:
        for entry in manifest.files:
            check_file(folder, entry, manifest.chunk_size)
    return Bundle(folder=folder, manifest=manifest, manifest_sha256=hashlib.sha256(data).hexdigest())


def check_file(folder: Path, entry: FileEntry, chunk_size: int) -> None:
    """Compare one file with its entry. Raises BundleError naming the file."""
    fd = open_inside(folder, entry.path)
    with os.fdopen(fd, "rb") as file:
        size = os.fstat(fd).st_size
        if size != entry.size:
            raise BundleError(f"{size} bytes, the manifest says {entry.size}", subject=entry.path)
        whole, chunks = _hash(file.fileno(), chunk_size)
    if whole != entry.sha256 or chunks != entry.chunks:
        raise BundleError("SHA-256 differs from the manifest", subject=entry.path)


def file_entry(path: Path, root: Path, chunk_size: int = limits.CHUNK_BYTES) -> FileEntry:
    """Return the manifest entry of the file `path` below `root`. Raises BundleError, ContractError for its name."""
    name = check_path(path.relative_to(root).as_posix(), what="bundle file")
    fd = open_inside(root, name)
    try:
        whole, chunks = _hash(fd, chunk_size)
        return FileEntry(path=name, size=os.fstat(fd).st_size, sha256=whole, chunks=chunks)
    finally:
        os.close(fd)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_inside(folder: Path, name: str) -> int:
    """Open the regular file `name` below `folder` for reading; return its descriptor.

    No part of `name` may be a symbolic link: each folder is opened in turn, relative to the one before, so a link
    put in place meanwhile is refused too. Raises BundleError naming the file.
    """
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY) if folder.is_dir() else _missing(folder)
    *parents, last = check_path(name, what="bundle file").split("/")
    try:
        for part in parents:
            at, before = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at), at
            os.close(before)
        fd = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    except OSError as error:
        hint = f"{folder} has no manifest.json; `edgewright compress` writes bundles" if name == MANIFEST_NAME else None
        raise BundleError(error.strerror or "cannot be opened", subject=name, hint=hint) from error
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise BundleError("not a regular file", subject=name)
    return fd


def _missing(folder: Path) -> int:
    raise BundleError("folder not found", subject=str(folder), hint="a bundle is a folder with a manifest.json")


def _read_bounded(folder: Path, name: str, limit: int) -> bytes:
    with os.fdopen(open_inside(folder, name), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BundleError(f"over the limit of {limit} bytes", subject=name)
    return data


def _hash(fd: int, chunk_size: int) -> tuple[str, tuple[str, ...]]:
    whole = hashlib.sha256()
    chunks: list[str] = []
    offset = 0
    while chunk := os.pread(fd, chunk_size, offset):
        whole.update(chunk)
        chunks.append(hashlib.sha256(chunk).hexdigest())
        offset += len(chunk)
    return whole.hexdigest(), tuple(chunks)
