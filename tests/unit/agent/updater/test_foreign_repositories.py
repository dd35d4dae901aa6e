"""TrustedRepository with repositories that others make: hashes, layouts and names that our own fleet never uses."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from edge_agent.errors import MalformedError, NotFoundError, TooLargeError
from edge_agent.updater.transports.directory import DirectoryTransport
from edge_agent.updater.trusted_repository import TrustedRepository

DATA = b"content"
SIGNER = CryptoSigner.generate_ed25519()
EXPIRES = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)


def make_repository(folder: Path, *files: TargetFile, consistent: bool = True) -> TrustedRepository:
    """Write a repository in which one key signs everything; return a device that trusts its root."""
    root = Root(expires=EXPIRES, consistent_snapshot=consistent)
    for role in ("root", "targets", "snapshot", "timestamp"):
        root.add_key(SIGNER.public_key, role)
    targets = Targets(expires=EXPIRES, targets={file.path: file for file in files})
    snapshot = Snapshot(expires=EXPIRES, meta={"targets.json": MetaFile(1)})
    documents = {"root": root, "targets": targets, "snapshot": snapshot, "timestamp": Timestamp(expires=EXPIRES)}
    (folder / "metadata").mkdir()
    for role, signed in documents.items():
        document: Metadata[Root | Timestamp | Snapshot | Targets] = Metadata(signed)
        document.sign(SIGNER)
        versioned = role == "root" or (consistent and role != "timestamp")
        document.to_file(str(folder / "metadata" / f"{'1.' if versioned else ''}{role}.json"))
    anchor = (folder / "metadata" / "1.root.json").read_bytes()
    return TrustedRepository(folder / "device", anchor, DirectoryTransport(folder), time.time())


def put(folder: Path, place: str) -> None:
    (folder / "targets" / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / "targets" / place).write_bytes(DATA)


def test_a_target_at_the_top_is_found(tmp_path: Path) -> None:
    file = TargetFile.from_data("name.txt", DATA, ["sha256"])
    put(tmp_path, f"{file.hashes['sha256']}.name.txt")
    assert make_repository(tmp_path, file).fetch("name.txt", 100) == DATA


def test_a_target_signed_with_sha512_alone_is_found_and_verified(tmp_path: Path) -> None:
    file = TargetFile.from_data("a/name.txt", DATA, ["sha512"])
    put(tmp_path, f"a/{file.hashes['sha512']}.name.txt")
    assert make_repository(tmp_path, file).fetch("a/name.txt", 100) == DATA


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha224"])
def test_a_target_signed_with_a_weak_hash_alone_is_refused(tmp_path: Path, algorithm: str) -> None:
    file = TargetFile.from_data("a/name.txt", DATA, [algorithm])
    put(tmp_path, f"a/{file.hashes[algorithm]}.name.txt")
    with pytest.raises(MalformedError, match="neither SHA-256 nor SHA-512"):
        make_repository(tmp_path, file).fetch("a/name.txt", 100)


def test_without_consistent_snapshots_names_carry_neither_version_nor_hash(tmp_path: Path) -> None:
    put(tmp_path, "a/name.txt")
    device = make_repository(tmp_path, TargetFile.from_data("a/name.txt", DATA, ["sha256"]), consistent=False)
    assert device.fetch("a/name.txt", 100) == DATA


def test_known_bytes_are_taken_only_if_they_are_what_is_signed(tmp_path: Path) -> None:
    device = make_repository(tmp_path, TargetFile.from_data("a/name.txt", DATA, ["sha256"]))
    assert device.fetch("a/name.txt", 100, DATA) == DATA
    with pytest.raises(NotFoundError):
        device.fetch("a/name.txt", 100, b"another")
    with pytest.raises(TooLargeError):
        device.fetch("a/name.txt", len(DATA) - 1, DATA)


@pytest.mark.parametrize("name", ["1.%2Frole.json", "1...%2Frole.json", "1.%3F.json"])
def test_an_encoded_role_name_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    make_repository(tmp_path)
    (tmp_path / "metadata" / name).write_bytes(DATA)
    assert DirectoryTransport(tmp_path).read("metadata", name, 0, 100) == (DATA, len(DATA))
