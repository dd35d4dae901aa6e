"""Files of known chunks in a folder: which are here, and fetching the others, several requests in flight.

What is on disk is known from a bitmap beside the files; a chunk the bitmap names is still checked by hash when a
download is resumed, so power may fail between the two writes. Every chunk is verified before it is stored, whoever
brings it. Where chunks come from is a `Transport`; what a release is made of is in `edge_agent.updater.download`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge_agent.errors import DamagedError, UnreachableError
from edge_agent.ports import Transport
from edge_agent.storage.durable import write_durably
from edge_agent.updater.byte_budget import ByteBudget
from edge_agent.updater.transports.fallback import from_any
from edge_contracts.errors import TransportError
from edge_contracts.manifest import FileEntry
from edge_contracts.profile import NetworkBudget

BITMAP = ".chunks"
BITMAP_S = 0.5
"""Seconds between two writes of the bitmap: what a power cut costs at most."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One chunk: its number over all files, its file, where it lies there and its hash."""

    number: int
    entry: FileEntry
    offset: int
    length: int
    sha256: str

    def fits(self, data: bytes) -> bool:
        """Return whether these are the chunk's bytes."""
        return len(data) == self.length and hashlib.sha256(data).hexdigest() == self.sha256


class ChunkFolder:
    """Files that arrive chunk by chunk, below one folder. `here_bytes` of them are here, at first by the bitmap."""

    def __init__(self, folder: Path, files: Sequence[FileEntry], chunk_size: int) -> None:
        self.folder = folder
        self.files = files
        self.pieces = tuple(_pieces(files, chunk_size))
        self._bitmap = self._read_bitmap()
        self.here_bytes = sum(piece.length for piece in self.pieces if self._bitmap[piece.number])

    def prepare(self) -> None:
        """Give every file its size. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for entry in self.files:
            path = self.folder / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.stat().st_size != entry.size:
                with path.open("wb") as file:
                    file.truncate(entry.size)

    def check(self) -> None:
        """Forget every chunk that is not what the bitmap says."""
        for piece in self.pieces:
            if self._bitmap[piece.number] and not piece.fits(read_piece(self.folder / piece.entry.path, piece)):
                self._bitmap[piece.number] = 0
                self.here_bytes -= piece.length

    def missing(self) -> list[Piece]:
        """Return the chunks that are not here."""
        return [piece for piece in self.pieces if not self._bitmap[piece.number]]

    def store(self, piece: Piece, data: bytes) -> None:
        """Keep a chunk's verified bytes."""
        with (self.folder / piece.entry.path).open("r+b") as file:
            file.seek(piece.offset)
            file.write(data)
        if not self._bitmap[piece.number]:
            self._bitmap[piece.number] = 1
            self.here_bytes += piece.length

    def note(self) -> None:
        """Write down which chunks are here, durably."""
        write_durably(self.folder / BITMAP, bytes(self._bitmap))

    def forget(self) -> None:
        """Remove what was written down."""
        (self.folder / BITMAP).unlink(missing_ok=True)

    def _read_bitmap(self) -> bytearray:
        try:
            found = bytearray((self.folder / BITMAP).read_bytes())
        except OSError:
            return bytearray(len(self.pieces))
        return found if len(found) == len(self.pieces) else bytearray(len(self.pieces))


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Fetches chunks through a carrier, within the device's budgets."""

    carrier: Transport
    network: NetworkBudget
    traffic: ByteBudget

    def fetch(self, chunks: ChunkFolder, pieces: Iterable[Piece], stored: Callable[[Piece], None]) -> None:
        """Fetch and store `pieces`, saying so for each. Raises DamagedError, UnreachableError, NotFoundError,
        BudgetError or OSError; what has arrived until then is stored."""
        pool = ThreadPoolExecutor(self.network.window, thread_name_prefix="chunk")
        try:
            self._fetch(pool, chunks, iter(pieces), stored)
        finally:
            pool.shutdown(cancel_futures=True)
            chunks.note()

    def _fetch(
        self, pool: ThreadPoolExecutor, chunks: ChunkFolder, queue: Iterator[Piece], stored: Callable[[Piece], None]
    ) -> None:
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
                    chunks.store(piece, future.result())
                except TransportError as error:
                    failure = error  # what else is in the air is still waited for and kept
                    continue
                stored(piece)
            if time.monotonic() - written > BITMAP_S:
                chunks.note()
                written = time.monotonic()
        if failure is not None:
            raise failure

    def _chunk(self, piece: Piece) -> bytes:
        """Return the chunk's verified bytes, asking again up to the profile's number of tries."""
        last: TransportError = UnreachableError("not tried", subject=piece.entry.path)
        for _ in range(self.network.retries):
            try:
                return from_any(self.carrier, partial(self._once, piece))
            except (UnreachableError, DamagedError) as error:
                last = error
        raise last

    def _once(self, piece: Piece, carrier: Transport) -> bytes:
        """Return the chunk's verified bytes from one carrier. Raises TransportError."""
        self.traffic.take(piece.length)
        try:
            data, _total = carrier.read("blob", piece.entry.sha256, piece.offset, piece.length)
        except UnreachableError:
            self.traffic.take(-piece.length)  # nothing came: an outage does not use up the day
            raise
        if not piece.fits(data):
            text = f"chunk at {piece.offset} has a SHA-256 that differs from the manifest"
            raise DamagedError(text, subject=piece.entry.path)
        return data


def read_piece(path: Path, piece: Piece) -> bytes:
    """Return the bytes at a chunk's place in a file."""
    with path.open("rb") as file:
        file.seek(piece.offset)
        return file.read(piece.length)


def _pieces(files: Sequence[FileEntry], chunk_size: int) -> Iterator[Piece]:
    number = 0
    for entry in files:
        for index, sha256 in enumerate(entry.chunks):
            offset = index * chunk_size
            length = min(chunk_size, entry.size - offset)
            yield Piece(number=number, entry=entry, offset=offset, length=length, sha256=sha256)
            number += 1
