"""A release on its way to the device: what of it is here already, what deltas make of that, and fetching the rest.

Resumed where it stopped, whenever that was: chunks are stored and checked in `edge_agent.updater.chunks`, deltas are
applied in `edge_agent.updater.delta_rebuild`. Everything is verified once more before the folder gets its final name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from edge_agent.errors import DamagedError
from edge_agent.ports import Transport
from edge_agent.storage.durable import DiskFullError, state_error, write_durably
from edge_agent.storage.state_dir import StateFolder
from edge_agent.updater.byte_budget import ByteBudget
from edge_agent.updater.chunks import ChunkFolder, Fetcher, Piece, read_piece
from edge_agent.updater.delta_rebuild import FOLDER, DeltaRebuild, Rebuilt
from edge_agent.updater.repair import set_aside
from edge_contracts.delta import Deltas
from edge_contracts.errors import ContractError
from edge_contracts.manifest import MANIFEST_NAME, Manifest, parse_manifest
from edge_contracts.profile import NetworkBudget
from edge_io.durable_files import move_folder, sync_folder


@dataclass(kw_only=True)
class Download:
    """One release on its way to the device. `deltas` lists what may spare fetching, `bundles` are folders of bundles
    that are on the device beside the installed releases; `rebuilt` hears what came of each delta. `replaces`: the
    release is here already, and damaged."""

    state: StateFolder
    manifest_bytes: bytes
    carrier: Transport
    network: NetworkBudget
    traffic: ByteBudget
    told: Callable[[int, int], None]
    deltas: Deltas | None = None
    bundles: Sequence[Path] = ()
    rebuilt: Callable[[Rebuilt], None] = lambda _: None
    replaces: bool = False
    manifest: Manifest = field(init=False)
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        self.manifest = parse_manifest(self.manifest_bytes)
        self.sha256 = hashlib.sha256(self.manifest_bytes).hexdigest()

    @property
    def folder(self) -> Path:
        return self.state.downloads / self.sha256

    def run(self) -> None:
        """Get what is missing, verify everything and give the folder its final name, durable on return.

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
        return self._chunks.here_bytes

    @cached_property
    def _chunks(self) -> ChunkFolder:
        return ChunkFolder(self.folder, self.manifest.files, self.manifest.chunk_size)

    def _run(self) -> None:
        try:
            self._chunks.prepare()
            self._chunks.check()
            self._copy()
            self._fetch()
            self._finish()
        except OSError as error:
            raise state_error("cannot store the download", error, self.folder) from error

    def _copy(self) -> None:
        """Take chunks from files of the same hash that the device has, instead of fetching them."""
        for piece in self._chunks.missing():
            for source in self._held.get(piece.entry.sha256, ()):
                if piece.fits(data := _read_held(source, piece)):
                    self._chunks.store(piece, data)
                    break

    def _fetch(self) -> None:
        fetcher = Fetcher(carrier=self.carrier, network=self.network, traffic=self.traffic)
        self._progress()
        if self.deltas is not None:
            rebuilding = DeltaRebuild(
                chunks=self._chunks,
                deltas=self.deltas,
                fetcher=fetcher,
                held={sha256: paths[0] for sha256, paths in self._held.items()},
                said=self.rebuilt,
                told=self._progress,
            )
            rebuilding.run()
        fetcher.fetch(self._chunks, self._chunks.missing(), self._progress)

    def _progress(self, _piece: Piece | None = None) -> None:
        self.told(self._chunks.here_bytes, self.manifest.total_bytes)

    @cached_property
    def _held(self) -> dict[str, list[Path]]:
        """The files of every bundle on the device, by their SHA-256, whatever they hold by now. A bundle whose manifest
        is damaged is none of any use, but for the one that is fetched here: that one's manifest is known."""
        found: dict[str, list[Path]] = {}
        for folder in (*self.bundles, *self.state.releases.iterdir()):
            with contextlib.suppress(OSError, ContractError):
                known = folder.name == self.sha256
                manifest = self.manifest if known else parse_manifest((folder / MANIFEST_NAME).read_bytes())
                for entry in manifest.files:
                    if (folder / entry.path).is_file():
                        found.setdefault(entry.sha256, []).append(folder / entry.path)
        return found

    def _finish(self) -> None:
        shutil.rmtree(self.folder / FOLDER, ignore_errors=True)
        for entry in self.manifest.files:
            path = self.folder / entry.path
            if _hash_and_sync(path) != entry.sha256:
                self._chunks.forget()
                raise DamagedError("SHA-256 differs from the manifest", subject=entry.path)
        self._chunks.forget()
        for folder in (self.folder, *(path for path in self.folder.rglob("*") if path.is_dir())):
            sync_folder(folder)
        write_durably(self.folder / MANIFEST_NAME, self.manifest_bytes)
        final = self.state.release(self.sha256)
        if final.exists() and not self.replaces:
            shutil.rmtree(self.folder)
            return
        if self.replaces:
            set_aside(final)
        move_folder(self.folder, final)


def _read_held(path: Path, piece: Piece) -> bytes:
    """Return what a file on the device holds at a chunk's place; nothing where the disk does not give it any more."""
    try:
        return read_piece(path, piece)
    except OSError:
        return b""


def _hash_and_sync(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return digest
