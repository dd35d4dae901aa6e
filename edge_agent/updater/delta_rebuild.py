"""Making a release's files out of files the device has, by deltas, before anything is fetched whole.

A delta is one more source of chunks: fetched like any blob, resumed like any, and what it makes is stored only where it
is what the signed manifest pins. Whatever is wrong with it, the file is fetched whole and the delta is not tried again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_agent.errors import DamagedError, DeltaError, NotFoundError
from edge_agent.update.preflight import DISK_RESERVE_MB
from edge_agent.updater.chunks import ChunkFolder, Fetcher, Piece
from edge_agent.updater.delta_apply import apply_delta, known_codecs
from edge_agent.updater.delta_choice import choose
from edge_contracts.delta import DeltaEntry, Deltas
from edge_contracts.errors import TransportError
from edge_contracts.limits import MIB
from edge_contracts.manifest import FileEntry

FOLDER = ".deltas"
"""Where deltas lie while a release is on its way, below its folder; no file of a bundle can have such a path."""


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """What came of one delta for the file `path`: `fetched` bytes spared fetching `spared` bytes more, or `problem`
    says why it was of no use."""

    path: str
    fetched: int
    spared: int
    problem: TransportError | None = None


@dataclass(frozen=True, kw_only=True)
class DeltaRebuild:
    """The deltas towards one release. `said` hears of each that was tried, `told` of each byte that arrived."""

    chunks: ChunkFolder
    deltas: Deltas
    fetcher: Fetcher
    held: Mapping[str, Path]
    said: Callable[[Rebuilt], None]
    told: Callable[[], None]

    def run(self) -> None:
        """Rebuild every file for which there is a usable delta; remove what the deltas needed.

        Raises UnreachableError or BudgetError when a delta's bytes do not come: it goes on from there next time. Raises
        OSError when the disk does not take it.
        """
        missing: dict[str, int] = {}
        for piece in self.chunks.missing():
            missing[piece.entry.sha256] = missing.get(piece.entry.sha256, 0) + piece.length
        chosen = choose(self._untried(), missing, self.held, known_codecs())
        for entry in self.chunks.files:
            delta = chosen.pop(entry.sha256, None)
            if delta is not None and self._has_room(delta):
                self._try(entry, delta)

    def _untried(self) -> Deltas:
        found = tuple(delta for delta in self.deltas.deltas if not self._mark(delta).exists())
        return msgspec.structs.replace(self.deltas, deltas=found)

    def _has_room(self, delta: DeltaEntry) -> bool:
        """Return whether the disk takes the delta beside everything that is still to come."""
        needed = delta.size + sum(piece.length for piece in self.chunks.missing()) + DISK_RESERVE_MB * MIB
        return needed <= shutil.disk_usage(self.chunks.folder).free

    def _try(self, entry: FileEntry, delta: DeltaEntry) -> None:
        problem: TransportError | None = None
        folder, before = self._folder(delta), self.chunks.here_bytes
        try:
            self._fetch(folder, delta)
            self._apply(entry, delta, folder / delta.sha256)
        except (DamagedError, DeltaError, NotFoundError) as error:
            problem = error
            self._mark(delta).touch()
        self.chunks.note()
        shutil.rmtree(folder)
        spared = self.chunks.here_bytes - before - delta.size
        self.said(Rebuilt(path=entry.path, fetched=delta.size, spared=spared, problem=problem))

    def _fetch(self, folder: Path, delta: DeltaEntry) -> None:
        blob = FileEntry(path=delta.sha256, size=delta.size, sha256=delta.sha256, chunks=delta.chunks)
        chunks = ChunkFolder(folder, (blob,), self.deltas.chunk_size)
        chunks.prepare()
        chunks.check()
        self.fetcher.fetch(chunks, chunks.missing(), lambda _: self.told())

    def _apply(self, entry: FileEntry, delta: DeltaEntry, file: Path) -> None:
        """Store every chunk that the delta makes and that is not here. Raises DeltaError at the first wrong one."""
        pieces = [piece for piece in self.chunks.pieces if piece.entry is entry]
        missing = {piece.number for piece in self.chunks.missing()}
        made = apply_delta(self.held[delta.base], file, delta.codec, entry.size)
        for piece, data in _cut(made, pieces):
            if not piece.fits(data):
                raise DeltaError(f"rebuilt chunk at {piece.offset} differs from the manifest", subject=entry.path)
            if piece.number in missing:
                self.chunks.store(piece, data)
                self.told()

    def _folder(self, delta: DeltaEntry) -> Path:
        return self.chunks.folder / FOLDER / delta.sha256

    def _mark(self, delta: DeltaEntry) -> Path:
        return self.chunks.folder / FOLDER / f"{delta.sha256}.failed"


def _cut(made: Iterator[bytes], pieces: Iterable[Piece]) -> Iterator[tuple[Piece, bytes]]:
    """Yield each chunk with the bytes that were made for it."""
    waiting = bytearray()
    for piece in pieces:
        while len(waiting) < piece.length and (more := next(made, b"")):
            waiting += more
        yield piece, bytes(waiting[: piece.length])
        del waiting[: piece.length]
