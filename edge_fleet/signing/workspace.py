"""A fleet's folder: settings, keys, the public repository, the devices' initial root, and the lock around changes.

fleet.toml    tenant and lifetimes          keys/        signing keys (owner only)
root.json     initial root for devices      repository/  what depots, web servers and exports serve
fleet.db      telemetry store               .lock        held while the repository changes
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

from msgspec import Meta
from tuf.api.metadata import Root, Targets, Timestamp

from edge_contracts.codec import StrictRecord, convert
from edge_contracts.names import Name
from edge_contracts.toml import decode_toml
from edge_fleet.errors import FleetBusyError, FleetError
from edge_fleet.retention import Retention
from edge_fleet.signing.keys import RELEASES, ROLLOUTS, SNAPSHOT, TIMESTAMP, KeyRing, check_outside_git, root_names
from edge_fleet.signing.metadata import read_metadata
from edge_fleet.signing.repository import FleetRepository
from edge_fleet.signing.roles import ROLLOUTS_PATHS, Lifetimes, releases_paths, releases_role
from edge_io.durable_files import PRIVATE_FILE, make_folder, write_file

SETTINGS_NAME = "fleet.toml"
LOCK_WAIT_S = 60.0
"""How long a command waits for another one; a release of gigabytes hashes before it takes the lock."""


class FleetSettings(StrictRecord, frozen=True, kw_only=True):
    """What `fleet.toml` may hold."""

    tenant: Name = "default"
    expiry_days: Lifetimes = Lifetimes()
    retention: Retention = Retention()


class NewFleet(StrictRecord, frozen=True, kw_only=True):
    """What a new fleet starts with. As many root keys are made as are needed to sign, if not told otherwise."""

    tenant: Name = "default"
    families: tuple[Name, ...] = ()
    root_threshold: Annotated[int, Meta(ge=1, le=16)] = 1
    root_keys: Annotated[int, Meta(ge=1, le=16)] | None = None
    expiry_days: Lifetimes = Lifetimes()


class FleetWorkspace:
    """An existing fleet folder."""

    def __init__(self, path: Path) -> None:
        """Open a fleet. Raises FleetError if the folder is none, ContractError naming a wrong setting."""
        self.path = path
        self.settings = read_settings(path)
        self.keys = KeyRing(path / "keys")
        self.repository = path / "repository"
        self.store_url = f"sqlite:///{(path / 'fleet.db').absolute()}"

    @property
    def tenant(self) -> str:
        """The fleet's name on the broker."""
        return self.settings.tenant

    def read(self, now: datetime) -> FleetRepository:
        """Return the repository for reading."""
        return FleetRepository(self.repository, self.keys, self.settings.expiry_days, now)

    @contextmanager
    def hold(self, now: datetime) -> Iterator[FleetRepository]:
        """Yield the repository for reading while nobody changes it. Raises FleetBusyError after `LOCK_WAIT_S`."""
        with locked(self.path / ".lock", LOCK_WAIT_S):
            yield self.read(now)

    def check_keys(self, repository: FleetRepository, roles: Sequence[str]) -> None:
        """Raise KeyMissingError or KeyExposedError unless a change to `roles` can be signed and published here."""
        needs_snapshot = any(role not in (Root.type, Timestamp.type) for role in roles)
        repository.require((*roles, *([SNAPSHOT] if needs_snapshot else []), TIMESTAMP))

    @contextmanager
    def change(self, now: datetime, roles: Sequence[str]) -> Iterator[FleetRepository]:
        """Yield the repository for one change to `roles`, published when the block ends without an error.

        Signing any target needs the snapshot's key too, and every change the timestamp's. Waits for other commands.
        Raises KeyMissingError before anything is changed, FleetBusyError after `LOCK_WAIT_S`.
        """
        with self.hold(now) as repository:
            self.check_keys(repository, roles)
            yield repository
            repository.publish()


def found(path: Path, founding: NewFleet, now: datetime) -> FleetWorkspace:
    """Create a fleet: folder, keys, settings, first signed metadata, and `root.json` for the devices.

    Raises FleetError if there is one already, KeyExposedError inside a git work tree.
    """
    if (path / SETTINGS_NAME).exists() or (path / "keys").exists():
        raise FleetError("a fleet exists here and its keys are never overwritten", subject=str(path))
    check_outside_git(path)
    make_folder(path)
    threshold = founding.root_threshold
    if (founding.root_keys or threshold) < threshold:
        raise FleetError(f"{founding.root_keys} root keys can never give {threshold} signatures", subject="root_keys")
    roots = root_names(founding.root_keys or threshold)
    keys = KeyRing(path / "keys")
    keys.create([*roots, RELEASES, ROLLOUTS, SNAPSHOT, TIMESTAMP])
    repository = FleetRepository(path / "repository", keys, founding.expiry_days, now)
    _sign_first(repository, keys, roots, threshold)
    for family in founding.families:
        repository.delegate(releases_role(family), releases_paths(family), [keys.public(RELEASES)])
    repository.publish()
    for name in ("blobs", "targets"):
        make_folder(path / "repository" / name)
    write_file(path / "root.json", read_metadata(path / "repository/metadata/1.root.json").to_bytes())
    write_file(path / "fleet.db", b"", PRIVATE_FILE)
    write_file(path / SETTINGS_NAME, _settings_text(founding).encode())
    return FleetWorkspace(path)


def read_settings(path: Path) -> FleetSettings:
    """Read `fleet.toml`. Raises FleetError if the folder is no fleet, ContractError naming the field."""
    file = path / SETTINGS_NAME
    try:
        data = file.read_bytes()
    except OSError as error:
        raise FleetError(
            f"no {SETTINGS_NAME} in this folder", subject=str(path), hint=f"edgewright fleet init {path}"
        ) from error
    return convert(decode_toml(data, what=str(file)), FleetSettings, what=SETTINGS_NAME)


@contextmanager
def locked(path: Path, wait_s: float) -> Iterator[None]:
    """Hold an exclusive lock on `path`, which the system releases even if this process dies.

    Raises FleetBusyError if another process holds it for longer than `wait_s`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        _acquire(descriptor, path, time.monotonic() + wait_s)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise FleetBusyError("another command is changing this fleet", subject=str(path)) from None
            time.sleep(0.05)
        else:
            return


def _sign_first(repository: FleetRepository, keys: KeyRing, roots: list[str], threshold: int) -> None:
    with repository.edit_root() as root:
        signers = {Root.type: roots, Targets.type: roots, SNAPSHOT: [SNAPSHOT], TIMESTAMP: [TIMESTAMP]}
        for role, names in signers.items():
            for name in names:
                root.add_key(keys.public(name), role)
            root.roles[role].threshold = threshold if names is roots else 1
    repository.delegate(ROLLOUTS, ROLLOUTS_PATHS, [keys.public(ROLLOUTS)])
    repository.refresh([ROLLOUTS])


def _settings_text(founding: NewFleet) -> str:
    lines = [
        "# The fleet's name: first level of every broker topic.",
        f'tenant = "{founding.tenant}"',
        "",
        "# Days from signing to expiry. `edgewright fleet controller` and `fleet refresh` re-sign in time.",
        "[expiry_days]",
    ]
    lines += [f"{name} = {getattr(founding.expiry_days, name)!r}" for name in Lifetimes.__struct_fields__]
    return "\n".join(lines) + "\n"
