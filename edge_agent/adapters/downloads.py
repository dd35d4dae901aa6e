"""Fetching a release's files by chunk: several requests in flight, every chunk verified, and resumed where it stopped.

What is on disk is known from a bitmap beside the files; a chunk the bitmap names is still checked by hash when a
download is resumed, so power may fail between the two writes. Where the chunks come from is a `Carrier`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.adapters.store import (
    DiskFullError,
    StateFolder,
    fsync_folder,
    move_durably,
    state_error,
    write_durably,
)
from edge_agent.adapters.traffic import Traffic
from edge_agent.errors import DamagedError, NotFoundError, UnreachableError
from edge_agent.ports import Carrier
from edge_contracts.errors import TransportError
from edge_contracts.manifest import MANIFEST_NAME, FileEntry, Manifest, parse_manifest
from edge_contracts.profile import NetworkBudget

BITMAP = ".chunks"
BITMAP_S = 0.5
"""Seconds between two writes of the bitmap: what a power cut costs at most."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One chunk of the release: its number over all files, its file, where it lies there and its hash."""

    number: int
    entry: FileEntry
    offset: int
    length: int
    sha256: str


@dataclass(kw_only=True)
class Download:
    """One release on its way to the device."""

    state: StateFolder
    manifest_bytes: bytes
    carrier: Carrier
    network: NetworkBudget
    traffic: Traffic
    told: Callable[[int, int], None]
    manifest: Manifest = field(init=False)
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        self.manifest = parse_manifest(self.manifest_bytes)
        self.sha256 = hashlib.sha256(self.manifest_bytes).hexdigest()

    @property
    def folder(self) -> Path:
        return self.state.downloads / self.sha256

    def run(self) -> None:
        """Fetch what is missing, verify everything and give the folder its final name, durable on return.

        Raises DamagedError, UnreachableError, NotFoundError, BudgetError or StateError; what has arrived until then is
        kept for the next time. Only when the disk is full (DiskFullError) is it given up: records come first, and no
        download starts again before preflight finds room for all of it.
        """
        try:
            self._run()
        except DiskFullError:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def fetched_bytes(self) -> int:
        """Return how many bytes an earlier attempt left, by its bitmap."""
        bitmap = self._read_bitmap()
        return sum(piece.length for piece in _pieces(self.manifest) if bitmap[piece.number])

    def _run(self) -> None:
        try:
            self._prepare()
            self._fetch_missing()
            self._finish()
        except OSError as error:
            raise state_error("download cannot be stored", error, self.folder) from error

    def _prepare(self) -> None:
        for entry in self.manifest.files:
            path = self.folder / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.stat().st_size != entry.size:
                with path.open("wb") as file:
                    file.truncate(entry.size)

    def _fetch_missing(self) -> None:
        bitmap = self._read_bitmap()
        missing: list[Piece] = []
        for piece in _pieces(self.manifest):
            if not (bitmap[piece.number] and self._holds(piece)):
                bitmap[piece.number] = 0
                missing.append(piece)
        missing = [piece for piece in missing if not self._copied(piece, bitmap)]
        done = self.manifest.total_bytes - sum(piece.length for piece in missing)
        self.told(done, self.manifest.total_bytes)
        pool = ThreadPoolExecutor(self.network.window, thread_name_prefix="chunk")
        try:
            self._fetch(pool, missing, bitmap, done)
        finally:
            pool.shutdown(cancel_futures=True)
            self._write_bitmap(bitmap)

    def _fetch(self, pool: ThreadPoolExecutor, missing: list[Piece], bitmap: bytearray, done: int) -> None:
        queue = iter(missing)
        flying: dict[Future[bytes], Piece] = {}
        failure: TransportError | None = None
        written = time.monotonic()
        while True:
            while failure is None and len(flying) < self.network.window and (piece := next(queue, None)) is not None:
                flying[pool.submit(self._chunk, piece)] = piece
            if not flying:
                break
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                piece = flying.pop(future)
                try:
                    self._store(piece, future.result())
                except TransportError as error:
                    failure = error  # what else is in the air is still waited for and kept
                    continue
                bitmap[piece.number] = 1
                done += piece.length
                self.told(done, self.manifest.total_bytes)
            if time.monotonic() - written > BITMAP_S:
                self._write_bitmap(bitmap)
                written = time.monotonic()
        if failure is not None:
            raise failure

    def _chunk(self, piece: Piece) -> bytes:
        """Return the chunk's verified bytes, asking again up to the profile's number of tries."""
        last: TransportError = UnreachableError("not tried", subject=piece.entry.path)
        for _ in range(self.network.retries):
            self.traffic.take(piece.length)
            try:
                data, _total = self.carrier.read("blob", piece.entry.sha256, piece.offset, piece.length)
            except NotFoundError:
                raise
            except UnreachableError as error:
                self.traffic.take(-piece.length)  # nothing came: an outage does not use up the day
                last = error
                continue
            if len(data) == piece.length and hashlib.sha256(data).hexdigest() == piece.sha256:
                return data
            last = DamagedError(f"chunk at {piece.offset} is not what the manifest pins", subject=piece.entry.path)
        raise last

    def _store(self, piece: Piece, data: bytes) -> None:
        with (self.folder / piece.entry.path).open("r+b") as file:
            file.seek(piece.offset)
            file.write(data)

    def _holds(self, piece: Piece) -> bool:
        with (self.folder / piece.entry.path).open("rb") as file:
            file.seek(piece.offset)
            return hashlib.sha256(file.read(piece.length)).hexdigest() == piece.sha256

    def _copied(self, piece: Piece, bitmap: bytearray) -> bool:
        """Take the chunk from an installed release that has a file of the same hash, instead of fetching it."""
        source = self._installed_files().get(piece.entry.sha256)
        if source is None:
            return False
        with source.open("rb") as file:
            file.seek(piece.offset)
            data = file.read(piece.length)
        if hashlib.sha256(data).hexdigest() != piece.sha256:
            return False
        self._store(piece, data)
        bitmap[piece.number] = 1
        return True

    def _installed_files(self) -> dict[str, Path]:
        if not hasattr(self, "_known_files"):
            self._known_files: dict[str, Path] = {}
            for folder in self.state.releases.iterdir():
                if (folder / MANIFEST_NAME).is_file():
                    manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes())
                    self._known_files.update({entry.sha256: folder / entry.path for entry in manifest.files})
        return self._known_files

    def _finish(self) -> None:
        for entry in self.manifest.files:
            path = self.folder / entry.path
            if _hash_and_sync(path) != entry.sha256:
                (self.folder / BITMAP).unlink(missing_ok=True)
                raise DamagedError("is not what the manifest pins", subject=entry.path)
        (self.folder / BITMAP).unlink(missing_ok=True)
        for folder in (self.folder, *(path for path in self.folder.rglob("*") if path.is_dir())):
            fsync_folder(folder)
        write_durably(self.folder / MANIFEST_NAME, self.manifest_bytes)
        final = self.state.release(self.sha256)
        if final.exists():
            shutil.rmtree(self.folder)
            return
        move_durably(self.folder, final)

    def _read_bitmap(self) -> bytearray:
        count = sum(len(entry.chunks) for entry in self.manifest.files)
        try:
            found = bytearray((self.folder / BITMAP).read_bytes())
        except OSError:
            return bytearray(count)
        return found if len(found) == count else bytearray(count)

    def _write_bitmap(self, bitmap: bytearray) -> None:
        write_durably(self.folder / BITMAP, bytes(bitmap))


def _pieces(manifest: Manifest) -> Iterator[Piece]:
    number = 0
    for entry in manifest.files:
        for index, sha256 in enumerate(entry.chunks):
            offset = index * manifest.chunk_size
            length = min(manifest.chunk_size, entry.size - offset)
            yield Piece(number=number, entry=entry, offset=offset, length=length, sha256=sha256)
            number += 1


def _hash_and_sync(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return digest
