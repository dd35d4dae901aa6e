"""The device's own identity on its disk: a key, its certificate, and the two authorities that belong to it.

<folder>/current.json          which identity is in use (core.identity.Enrolled), replaced by one rename
<folder>/<serial>/             device.pem, device.key, ca.pem (whom to trust as the broker), issuer.pem; never changed
<folder>/pending.key           a key whose certificate was asked for and has not come

A new identity is complete under its own serial before `current.json` names it: a power cut leaves the old one or the
new one, and a key is never in use without its certificate. Nothing here understands keys or certificates; that is
`edge_agent.enrollment.certificates`, which the supervisor does not load.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from edge_agent.identity.validity import Enrolled
from edge_agent.storage.durable import StateError, state_error, write_durably
from edge_io.durable_files import delete_tree, move_folder, sync_folder

SECRET = 0o600


class IdentityPaths(Struct, frozen=True, kw_only=True):
    """The contents of an identity, each PEM."""

    certificate: bytes
    key: bytes
    ca: bytes
    issuer: bytes


class IdentityFiles(Struct, frozen=True):
    """Where the parts of one identity are."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "device.pem"

    @property
    def key(self) -> Path:
        return self.folder / "device.key"

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def issuer(self) -> Path:
        return self.folder / "issuer.pem"


class IdentityFolder:
    """The folder `identity` of the state folder. Written by one process at a time: whoever holds the lock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._record = root / "current.json"
        self._pending = root / "pending.key"

    def current(self) -> Enrolled | None:
        """Return the identity in use, if the device has one. Raises StateError naming a file that cannot be read."""
        try:
            return msgspec.json.decode(self._record.read_bytes(), type=Enrolled)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StateError(f"cannot be read: {error}", subject=str(self._record)) from error

    def files(self, enrolled: Enrolled) -> IdentityFiles:
        """Return where an identity's parts are."""
        return IdentityFiles(self.root / enrolled.serial)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Make the folder if need be and hold it for writing, after whoever holds it now. Raises StateError."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            sync_folder(self.root.parent)
            lock = (self.root / "lock").open("ab")
        except OSError as error:
            raise state_error("cannot be created", error, self.root) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                self._give_to_owner()

    def pending_key(self) -> bytes | None:
        """Return the key that waits for its certificate: asking again with it gets the same certificate. One that a
        power cut left behind and that is in use already does not wait."""
        try:
            key = self._pending.read_bytes()
            current = self.current()
            return None if current is not None and self.files(current).key.read_bytes() == key else key
        except FileNotFoundError:
            return None
        except OSError as error:
            raise state_error("cannot be read", error, self._pending) from error

    def keep_key(self, key: bytes) -> None:
        """Keep a new key, durably, before it is used to ask."""
        write_durably(self._pending, key, mode=SECRET)

    def drop_key(self) -> None:
        """Forget the waiting key."""
        self._pending.unlink(missing_ok=True)

    def adopt(self, enrolled: Enrolled, papers: IdentityPaths) -> None:
        """Put a new identity into use and forget all but the one before it, which an updater may still be reading."""
        before = self._readable()
        draft, final = self.root / f".{enrolled.serial}", self.root / enrolled.serial
        try:
            delete_tree(draft)
            draft.mkdir(mode=0o700)
            files = IdentityFiles(draft)
            write_durably(files.key, papers.key, mode=SECRET)
            for path, data in ((files.ca, papers.ca), (files.issuer, papers.issuer)):
                write_durably(path, data)
            write_durably(files.certificate, papers.certificate)
            if not final.exists():  # a power cut came after this rename before
                move_folder(draft, final)
        except OSError as error:
            raise state_error("cannot be written", error, draft) from error
        write_durably(self._record, msgspec.json.encode(enrolled))
        self.drop_key()
        self._forget({enrolled.serial, "" if before is None else before.serial})

    def _readable(self) -> Enrolled | None:
        with contextlib.suppress(StateError):
            return self.current()
        return None

    def _forget(self, keep: set[str]) -> None:
        for folder in self.root.iterdir():
            if folder.is_dir() and folder.name not in keep:
                delete_tree(folder)

    def _give_to_owner(self) -> None:
        """An administrator enrolls, and the agent's own user has to read it: give everything to the state's owner."""
        if os.geteuid() != 0:
            return
        owner = self.root.parent.stat()
        for path in (self.root, *self.root.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
