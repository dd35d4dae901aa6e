"""Signed metadata and signed documents, verified by python-tuf; what this module adds is durability and memory.

python-tuf writes without fsync, so it works in a scratch copy and only what it has verified is written durably to
`trusted`. It forgets its rollback protection when a stored file is damaged and believes the clock, so the newest
versions and the newest time ever verified are kept in a record of our own, `floor.json`. That record holds under the
keys that sign timestamps and snapshots: when the root replaces one of them, whatever a thief did to versions or time
is forgotten (TUF 5.3.11; docs/decisions/0011-keys-and-recovery.md). Imported only in the short-lived updater:
python-tuf and its dependencies cost 25 MB.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from tuf.api import exceptions
from tuf.api.metadata import Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from edge_agent.errors import (
    ExpiredError,
    HashMismatchError,
    MalformedError,
    MissingTargetError,
    NotFoundError,
    RefusedError,
    RolledBackError,
    SignatureError,
    TooLargeError,
)
from edge_agent.ports import ObjectKind, Transport
from edge_agent.storage.durable import state_error, write_durably
from edge_agent.updater.transports.fallback import StaleError, from_any, several
from edge_contracts import limits
from edge_contracts.codec import Record, decode
from edge_contracts.errors import ContractError

_BASES: dict[str, ObjectKind] = {"carrier:/metadata/": "metadata", "carrier:/targets/": "target"}
_METADATA, _TARGETS = _BASES


class Floor(Record, frozen=True, kw_only=True):
    """The newest that was ever verified: the root's version, and, under the online keys of fingerprint `keys`, the time
    in seconds and the versions of the other roles. `signed` is the newest time that a verified document shows, whatever
    this device's clock says."""

    time: float = 0.0
    signed: float = 0.0
    root: int = 0
    keys: str = ""
    versions: dict[str, int] = {}


class TrustedRepository:
    """One session with a repository. `now` is the device's clock, seconds since the epoch."""

    def __init__(self, folder: Path, root: bytes, carrier: Transport, now: float) -> None:
        """`root` is the trust anchor the device was given. Raises RefusedError if it does not hold."""
        self._trusted = folder / "trusted"
        self._session = folder / "session"
        self._floor_path = folder / "floor.json"
        self._floor = self._read_floor()
        self._now = now
        self._root = root
        self._carrier = carrier
        self._fetcher = _CarrierFetcher(carrier)
        self._begin(str(folder))

    def _begin(self, subject: str | None = None) -> None:
        """Start over from what is trusted already."""
        with _refusals(subject):
            self._reset_session()
            self._updater = Updater(
                str(self._session),
                _METADATA,
                target_base_url=_TARGETS,
                fetcher=self._fetcher,
                config=UpdaterConfig(targets_max_length=2_000_000, snapshot_max_length=500_000),
                bootstrap=self._root,
            )
        self._set = self._updater._trusted_set
        self._used = False

    def refresh(self, announced: int = 0) -> dict[str, int]:
        """Fetch and verify the top-level metadata; return its versions by role. A carrier whose timestamp is older than
        the version `announced` is given up for the next one; where none has it, what there is will do.

        Raises a RefusedError with the reason, or a TransportError. Whatever was verified before is kept either way.
        """
        if several(self._carrier):
            with contextlib.suppress(StaleError):
                return from_any(self._carrier, lambda carrier: self._refresh(carrier, announced))
        return from_any(self._carrier, lambda carrier: self._refresh(carrier, 0))

    def _refresh(self, carrier: Transport, announced: int) -> dict[str, int]:
        self._fetcher.carrier = carrier
        if self._used:
            self._begin()
        self._used = True
        try:
            with _refusals():
                self._load()
            self._check_floor()
        finally:
            self._persist()
        self._raise_floor(self._now)
        versions = self.versions()
        if versions["timestamp"] < announced:
            raise StaleError(f"timestamp version {versions['timestamp']}, but {announced} was announced")
        return versions

    def fetch(self, target: str, limit: int, known: bytes | None = None) -> bytes:
        """Return a signed target's verified bytes; `known` itself, without asking, if those are what is signed.

        Raises a RefusedError with the reason, or a TransportError.
        """
        return from_any(self._carrier, lambda carrier: self._fetch(carrier, target, limit, known))

    def _fetch(self, carrier: Transport, target: str, limit: int, known: bytes | None) -> bytes:
        self._fetcher.carrier = carrier
        try:
            with _refusals():
                info = self._updater.get_targetinfo(target)
        finally:
            self._persist()
        self._check_floor()
        self._raise_floor(self._now)
        if info is None:
            raise MissingTargetError("not found, or not signed by a role that may sign it", subject=target)
        if info.length > limit:
            raise TooLargeError(f"{info.length} bytes signed, over the limit of {limit}", subject=target)
        if known is not None and _is(info, known):
            return known
        return self._download(info)

    def saw_time(self, signed: float) -> None:
        """Take a creation date out of a verified document as a lower bound of the time, after `refresh`."""
        self._raise_floor(signed, signed=signed)

    def time(self) -> float:
        """Return the device's time in seconds: its clock, or the floor for a clock that is behind it."""
        return max(self._now, self._floor.time)

    def versions(self) -> dict[str, int]:
        """Return the version of every role verified in this session."""
        found = {"root": self._set.root.version, "timestamp": self._set.timestamp.version}
        found["snapshot"] = self._set.snapshot.version
        # Delegated roles by the snapshot, which is what fixes their versions.
        for name, info in self._set.snapshot.meta.items():
            found[name.removesuffix(".json")] = info.version
        return found

    def close(self) -> None:
        """Remove the scratch copy."""
        shutil.rmtree(self._session, ignore_errors=True)

    def _download(self, info: TargetFile) -> bytes:
        digest = info.hashes.get("sha256") or info.hashes.get("sha512")
        if digest is None:
            raise MalformedError("signed with neither SHA-256 nor SHA-512", subject=info.path)
        folder, slash, name = info.path.rpartition("/")
        prefix = f"{digest}." if self._set.root.consistent_snapshot else ""
        with _refusals(info.path):
            data = self._fetcher.download_bytes(f"{_TARGETS}{folder}{slash}{prefix}{name}", info.length)
            info.verify_length_and_hashes(data)
        return data

    def _reset_session(self) -> None:
        shutil.rmtree(self._session, ignore_errors=True)
        self._trusted.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self._trusted, self._session)

    def _persist(self) -> None:
        """Make what python-tuf has verified durable, roots first and the timestamp last."""
        files = [path for path in self._session.rglob("*.json") if path.name != "root.json"]
        for path in sorted(files, key=lambda p: (p.parent == self._session, p.name == "timestamp.json", p.name)):
            kept = self._trusted / path.relative_to(self._session)
            data = path.read_bytes()
            if not kept.exists() or kept.read_bytes() != data:
                kept.parent.mkdir(exist_ok=True)
                write_durably(kept, data)

    def _load(self) -> None:
        """python-tuf's refresh, with our time set between the root and what it vouches for."""
        self._updater._load_root()
        if self._set.root.version < self._floor.root:
            raise RolledBackError(f"root {self._set.root.version}, {self._floor.root} was verified earlier")
        if self._floor.keys != _online_keys(self._set.root):
            self._floor = Floor(root=self._floor.root)
        # python-tuf has no public way to give the time; the clock of a box without a battery may stand at 1970.
        self._set.reference_time = datetime.fromtimestamp(self.time(), UTC)
        self._updater._load_timestamp()
        self._updater._load_snapshot()
        self._updater._load_targets(Targets.type, Root.type)

    def _check_floor(self) -> None:
        """Refuse what is older than ever verified under the same keys."""
        for role, version in self.versions().items():
            if version < self._floor.versions.get(role, 0):
                raise RolledBackError(f"version {version}, {self._floor.versions[role]} was seen earlier", subject=role)

    def _raise_floor(self, moment: float, *, signed: float = 0.0) -> None:
        """Remember versions, and `moment` as past. No time is believed at which anything verified here would have
        expired: whatever a clock or a document claims, the floor cannot make what is valid today look expired."""
        latest = min(metadata.expires.timestamp() for metadata in self._set) - 1.0
        floor = Floor(
            time=max(self._floor.time, min(moment, latest)),
            signed=max(self._floor.signed, min(signed, latest)),
            root=self._set.root.version,
            keys=_online_keys(self._set.root),
            versions=self.versions(),
        )
        if floor != self._floor:
            self._write_floor(floor)

    def _write_floor(self, floor: Floor) -> None:
        self._floor = floor
        write_durably(self._floor_path, msgspec.json.encode(floor))

    def _read_floor(self) -> Floor:
        try:
            return decode(self._floor_path.read_bytes(), Floor, limit=limits.MAX_DOCUMENT_BYTES, what="floor")
        except FileNotFoundError:
            return Floor()
        except ContractError as error:
            raise MalformedError(
                "the stored record of the newest time is damaged", subject=str(self._floor_path)
            ) from error


class _CarrierFetcher(FetcherInterface):
    """python-tuf's network, over a Carrier."""

    def __init__(self, carrier: Transport) -> None:
        self.carrier = carrier

    def _fetch(self, url: str) -> Iterator[bytes]:
        base, kind = next((base, kind) for base, kind in _BASES.items() if url.startswith(base))
        return self._pieces(kind, url.removeprefix(base))

    def _pieces(self, kind: ObjectKind, name: str) -> Iterator[bytes]:
        offset, total = 0, 1
        while offset < total:
            try:
                piece, total = self.carrier.read(kind, name, offset, limits.CHUNK_BYTES)
            except NotFoundError as error:
                if kind == "metadata" and name.endswith(".root.json"):
                    # How python-tuf learns that there is no newer root.
                    raise exceptions.DownloadHTTPError(str(error), 404) from error
                raise
            if not piece:
                return
            offset += len(piece)
            yield piece


def _online_keys(root: Root) -> str:
    """Return a fingerprint of who may sign timestamps and snapshots."""
    keyids = [f"{name}:{keyid}" for name in (Snapshot.type, Timestamp.type) for keyid in root.roles[name].keyids]
    return hashlib.sha256(" ".join(sorted(keyids)).encode()).hexdigest()


def _is(info: TargetFile, data: bytes) -> bool:
    try:
        info.verify_length_and_hashes(data)
    except exceptions.LengthOrHashMismatchError:
        return False
    return True


@contextlib.contextmanager
def _refusals(subject: str | None = None) -> Iterator[None]:
    """Turn python-tuf's errors into ours, each with its stable reason."""
    try:
        yield
    except (exceptions.RepositoryError, exceptions.DownloadError) as error:
        raise _refusal(error, subject) from error
    except (ContractError, ValueError, KeyError, TypeError) as error:
        raise MalformedError(f"cannot be read: {error}", subject=subject) from error
    except OSError as error:
        raise state_error("cannot be written", error, Path(error.filename or subject or "trusted metadata")) from error


def _refusal(error: Exception, subject: str | None) -> RefusedError:
    kinds: tuple[tuple[type[Exception], type[RefusedError]], ...] = (
        (exceptions.UnsignedMetadataError, SignatureError),
        (exceptions.ExpiredMetadataError, ExpiredError),
        (exceptions.BadVersionNumberError, RolledBackError),
        (exceptions.LengthOrHashMismatchError, HashMismatchError),
        (exceptions.DownloadLengthMismatchError, TooLargeError),
    )
    for theirs, ours in kinds:
        if isinstance(error, theirs):
            return ours(str(error), subject=subject)
    return MalformedError(str(error) or type(error).__name__, subject=subject)
