"""The device's state folder: where everything lies, and the only way anything in it is written.

Every record is written to a temporary file in the same folder, fsynced, renamed over the old one, and the folder is
fsynced: after a power cut at any system call there is the old record or the new one, never half of either. Releases
come in whole folders by one rename and are immutable from then on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from edge_agent.errors import ConfigError
from edge_agent.storage.durable import StateError, write_durably
from edge_agent.update.record import UpdateRecord
from edge_contracts import limits
from edge_contracts.codec import decode
from edge_contracts.errors import ContractError
from edge_contracts.manifest import MANIFEST_NAME, Manifest, parse_manifest
from edge_io.durable_files import TEMPORARY, delete_tree, sync_folder

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def kernel_boot_id() -> str:
    """Return what names this start of the kernel; empty where the system does not show it."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


class FolderLock:
    """The right to write into a state folder, until it is closed or the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        os.close(self._descriptor)


class StateFolder:
    """The layout of the state folder and the records in it. One writer: the supervisor; the updater writes
    `downloads`, `releases` and `tuf` only."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.releases = root / "releases"
        self.downloads = root / "downloads"
        self.slots = root / "slots"
        self.tuf = root / "tuf"
        self.cache = root / "cache"
        self.audit = root / "audit.jsonl"
        self.outbox = root / "outbox.db"
        self.imports = root / "imports.json"
        self.running = root / "running.json"
        self.control = root / "control.sock"
        self.kept_topics = root / "kept-topics.json"
        self.traffic = root / "traffic.json"
        self.floor = self.tuf / "floor.json"

    @property
    def writable(self) -> bool:
        """Whether the folder is on a file system that is mounted writable, and ours to write."""
        return os.access(self.root, os.W_OK)

    def takes_files(self) -> bool:
        """Return whether a file can be made here now, by making one and removing it."""
        return takes_files(self.root)

    def create(self) -> None:
        """Make the folders. A folder that is there and read-only stays as it is. Raises StateError."""
        try:
            for folder in (self.root, self.releases, self.downloads, self.slots, self.tuf, self.cache):
                folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            sync_folder(self.root)
        except OSError as error:
            if self.root.is_dir() and not self.takes_files():
                return
            raise StateError(f"cannot be created: {error.strerror}", subject=str(self.root)) from error

    def lock(self) -> FolderLock:
        """Take the folder for this process; the kernel gives it back whatever ends the process. Raises ConfigError,
        StateError."""
        try:
            descriptor = self._open_lock()
        except OSError as error:
            raise StateError(f"cannot be opened: {error.strerror}", subject=str(self.root / "lock")) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            hint = f"see `edgewright agent status --state {self.root}`"
            raise ConfigError(
                "another agent is running on this state folder", subject=str(self.root), hint=hint
            ) from error
        return FolderLock(descriptor)

    def _open_lock(self) -> int:
        """Open what is locked: the lock file, or the folder itself where no file can be made. Raises OSError."""
        path = self.root / "lock"
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            if self.takes_files():
                raise
        return os.open(path if path.exists() else self.root, os.O_RDONLY | os.O_CLOEXEC)

    def mark_running(self) -> None:
        """Leave the file that only an unclean end leaves behind, durably: the next start has to know of a power cut
        even if that comes at once. It names the boot of the kernel. A disk that refuses it does not stop the agent."""
        with contextlib.suppress(OSError):
            self.running.touch()
            self.running.write_text(kernel_boot_id(), encoding="ascii")
            sync_folder(self.root)

    def ran_before_this_boot(self) -> bool:
        """Return whether the kernel has started anew since an agent ran here that was not stopped in order."""
        try:
            left = self.running.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return False
        return bool(left) and left != kernel_boot_id()

    def mark_stopped(self) -> None:
        """Take that file away: this run ended in order."""
        with contextlib.suppress(OSError):
            self.running.unlink(missing_ok=True)

    def release(self, manifest_sha256: str) -> Path:
        """Return the folder of an installed release."""
        return self.releases / manifest_sha256

    def has_release(self, manifest_sha256: str) -> bool:
        """Return whether the release is installed: its folder got its final name only once everything was verified."""
        return (self.releases / manifest_sha256 / MANIFEST_NAME).is_file()

    def read_record(self, slot: str) -> UpdateRecord:
        """Return the slot's record, or a new one. A record that does not parse was not written by this function's
        counterpart: it raises StateError rather than start over and forget what was rejected."""
        path = self.slots / f"{slot}.json"
        try:
            return decode(path.read_bytes(), UpdateRecord, limit=limits.MAX_DOCUMENT_BYTES, what="record")
        except FileNotFoundError:
            return UpdateRecord(slot=slot)
        except (OSError, ContractError) as error:
            raise StateError(f"cannot be read: {error}", subject=str(path)) from error

    def write_record(self, record: UpdateRecord) -> None:
        """Persist a slot's record."""
        write_durably(self.slots / f"{record.slot}.json", msgspec.json.encode(record))

    def read_manifest(self, manifest_sha256: str) -> Manifest:
        """Return an installed release's manifest. Raises StateError if it is not what its folder's name says."""
        return read_manifest(self.release(manifest_sha256), expected=manifest_sha256)[0]

    def collect_garbage(self, keep: Iterable[str]) -> list[str]:
        """Delete every release and every partial download whose manifest is not in `keep`; return their hashes.

        With a release go the optimized models made from its files, and with everything what a power cut left of a
        record's writing. Nobody else may be writing.
        """
        kept = set(keep)
        gone: list[str] = []
        for folder in (self.releases, self.downloads):
            for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
                if entry.name not in kept:
                    # Renamed first and for good, so that a power cut never leaves half a release under its name.
                    doomed = entry if entry.name.startswith(".gone-") else entry.with_name(f".gone-{entry.name}")
                    if doomed is not entry:
                        entry.rename(doomed)
                        sync_folder(folder)
                        gone.append(entry.name)
                    delete_tree(doomed)
        for folder in (self.root, self.slots, *(path for path in self.tuf.rglob("*") if path.is_dir())):
            for temporary in folder.glob(f".*{TEMPORARY}"):
                temporary.unlink(missing_ok=True)
        if gone:
            self._trim_cache(kept)
        return gone

    def _trim_cache(self, kept: set[str]) -> None:
        """Delete optimized models of no release that is left. A factory bundle's are made again at its next load."""
        models: set[str] = set()
        for manifest_sha256 in kept:
            with contextlib.suppress(StateError):
                models.update(entry.sha256 for entry in self.read_manifest(manifest_sha256).files)
        for entry in self.cache.iterdir() if self.cache.is_dir() else ():
            if entry.is_file() and entry.name.partition("-")[0] not in models:
                entry.unlink(missing_ok=True)


def takes_files(folder: Path) -> bool:
    """Return whether a file can be made in `folder`, by making one. A card that fails is often still mounted writable:
    ext4 refuses every change and tells nobody who only asks. A disk without room is another matter and counts as one
    that takes files."""
    if not os.access(folder, os.W_OK):
        return False
    probe = folder / f".probe{TEMPORARY}"
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        probe.unlink()
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return True


def read_manifest(folder: Path, *, expected: str | None = None) -> tuple[Manifest, str]:
    """Return the manifest in a bundle folder and its SHA-256. Raises StateError naming the file."""
    path = folder / MANIFEST_NAME
    try:
        if path.stat().st_size > limits.MAX_MANIFEST_BYTES:
            raise StateError(f"over {limits.MAX_MANIFEST_BYTES} bytes", subject=str(path))
        data = path.read_bytes()
    except OSError as error:
        raise StateError(f"cannot be read: {error.strerror}", subject=str(path)) from error
    digest = hashlib.sha256(data).hexdigest()
    if expected is not None and digest != expected:
        raise StateError("SHA-256 differs from the name of its folder", subject=str(path))
    try:
        return parse_manifest(data), digest
    except ContractError as error:
        raise StateError(str(error), subject=str(path)) from error
