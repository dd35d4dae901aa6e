"""What the disk has lost of an installed release is fetched again, and nothing else."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.sites.update_site import TamperingCarrier, UpdateSite, names, troubles

from edge_agent.errors import UnreachableError
from edge_agent.ipc.updater import Checking, Damaged, FromUpdater, Offer, Repaired
from edge_agent.ports import ObjectKind, Transport
from edge_agent.updater.__main__ import transport_of
from edge_agent.updater.repair import damage
from edge_contracts.limits import CHUNK_BYTES
from edge_contracts.manifest import MANIFEST_NAME
from edge_contracts.state import Installed
from edge_fleet.releases.release import revoke

PADDING = 4 * CHUNK_BYTES


class Counting:
    """Counts the bytes of chunks that another carrier brings."""

    def __init__(self, inner: Transport) -> None:
        self.inner, self.bytes = inner, 0

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        data, total = self.inner.read(kind, name, offset, length)
        self.bytes += len(data) if kind == "blob" else 0
        return data, total


@pytest.fixture
def site(tmp_path: Path) -> UpdateSite:
    site = UpdateSite(tmp_path)
    site.release("1.0.0", padding=PADDING)
    site.start("1.0.0")
    site.look()
    shutil.rmtree(site.folder / "bundle-1.0.0")
    return site


@pytest.fixture
def release(site: UpdateSite) -> Installed:
    (folder,) = site.state.releases.iterdir()
    return Installed(version="1.0.0", manifest_sha256=folder.name)


def look(
    site: UpdateSite, release: Installed, carrier: Transport | None = None, *, verify: bool = False, **slot: object
) -> list[FromUpdater]:
    sha256 = release.manifest_sha256
    held = {"running": (sha256,), "ready": (sha256,), "installed": (release,), "damaged": (sha256,)}
    return site.look(carrier, verify=verify, **held | slot)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_one_flipped_bit_costs_one_chunk(site: UpdateSite, release: Installed) -> None:
    folder = site.state.release(release.manifest_sha256)
    flip(folder / "padding.bin", CHUNK_BYTES + 7)
    counting = Counting(site.carrier)
    messages = look(site, release, counting)
    assert names(messages) == ["Trusted", "Damaged", "Repaired", "Offer"]
    assert counting.bytes == CHUNK_BYTES
    (repaired,) = [message for message in messages if isinstance(message, Repaired)]
    assert repaired.fetched == CHUNK_BYTES
    assert damage(folder, release.manifest_sha256) is None
    assert [path.name for path in site.state.releases.iterdir()] == [release.manifest_sha256]
    assert not list(site.state.downloads.iterdir())


LOSSES: dict[str, Callable[[Path], object]] = {
    "the folder": shutil.rmtree,
    "the manifest": lambda folder: (folder / MANIFEST_NAME).unlink(),
    "half of the manifest": lambda folder: (folder / MANIFEST_NAME).write_bytes(b'{"name":'),
    "another manifest": lambda folder: (folder / MANIFEST_NAME).write_bytes(b"{}"),
    "a file": lambda folder: (folder / "padding.bin").unlink(),
    "the end of a file": lambda folder: (folder / "padding.bin").write_bytes(b"short"),
    "a file for a folder": lambda folder: ((folder / "padding.bin").unlink(), (folder / "padding.bin").mkdir()),
    "a file for a link": lambda folder: ((folder / "padding.bin").unlink(), (folder / "padding.bin").symlink_to("/")),
}


@pytest.mark.parametrize("lost", LOSSES)
def test_whatever_was_lost_comes_back(site: UpdateSite, release: Installed, lost: str) -> None:
    folder = site.state.release(release.manifest_sha256)
    LOSSES[lost](folder)
    assert damage(folder, release.manifest_sha256) is not None
    assert "Repaired" in names(look(site, release))
    assert damage(folder, release.manifest_sha256) is None


def test_lost_manifest_costs_no_chunk(site: UpdateSite, release: Installed) -> None:
    (site.state.release(release.manifest_sha256) / MANIFEST_NAME).unlink()
    counting = Counting(site.carrier)
    look(site, release, counting)
    assert counting.bytes == 0


def test_release_that_is_whole_is_left_alone(site: UpdateSite, release: Installed) -> None:
    counting = Counting(site.carrier)
    messages = look(site, release, counting)
    assert names(messages) == ["Trusted", "Repaired", "Offer"]
    assert counting.bytes == 0


def test_nothing_is_looked_at_that_nobody_asked_for(site: UpdateSite, release: Installed) -> None:
    flip(site.state.release(release.manifest_sha256) / "padding.bin", 0)
    assert names(look(site, release, damaged=())) == ["Trusted", "Offer"]


class Away:
    """Nobody answers."""

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        raise UnreachableError("no answer", subject="mirror")


def test_where_nobody_answers_a_look_that_finds_everything_whole_has_gone_well(
    site: UpdateSite, release: Installed
) -> None:
    messages = look(site, release, Away(), verify=True)
    assert names(messages) == ["Repaired"]


def test_where_nobody_answers_what_is_damaged_is_named_and_why_it_stays_so(
    site: UpdateSite, release: Installed
) -> None:
    flip(site.state.release(release.manifest_sha256) / "padding.bin", 0)
    messages = look(site, release, Away(), verify=True)
    assert names(messages) == ["Damaged", "Trouble"]
    assert troubles(messages) == [("transport", "unreachable")]
    assert "padding.bin" in next(message.text for message in messages if isinstance(message, Damaged))


def test_a_look_for_something_new_says_that_nobody_answered(site: UpdateSite, release: Installed) -> None:
    assert names(look(site, release, Away(), verify=False)) == ["Trouble"]


def test_a_plan_that_names_nobody_to_ask_can_still_be_looked_at(site: UpdateSite, release: Installed) -> None:
    carrier, close = transport_of(site.plan(over_network=True), [].append)
    messages = look(site, release, carrier, verify=True)
    close()
    assert names(messages) == ["Repaired"]
    assert troubles(look(site, release, carrier, verify=False)) == [("operator", "config")]


def test_revoked_release_is_not_fetched_again(site: UpdateSite, release: Installed) -> None:
    shutil.rmtree(site.state.release(release.manifest_sha256))
    revoke(site.fleet, "linear", "1.0.0", site.now)
    assert "Repaired" not in names(look(site, release))
    assert not list(site.state.releases.iterdir())


def test_chunks_that_are_not_what_is_pinned_repair_nothing(site: UpdateSite, release: Installed) -> None:
    folder = site.state.release(release.manifest_sha256)
    flip(folder / "padding.bin", 0)
    bad = TamperingCarrier(site.carrier, _sha(folder), lambda data: bytes(len(data)))
    messages = look(site, release, bad)
    assert names(messages) == ["Trusted", "Damaged", "Trouble", "Offer"]
    assert troubles(messages) == [("transport", "damaged")]
    assert "Repaired" in names(look(site, release))


def test_damaged_release_keeps_no_newer_one_from_being_fetched(site: UpdateSite, release: Installed) -> None:
    (site.state.release(release.manifest_sha256) / MANIFEST_NAME).write_bytes(b"\xff")
    site.release("1.1.0")
    site.start("1.1.0")
    assert "Stored" in names(look(site, release, damaged=()))


def test_facts_that_changed_let_a_refused_release_be_judged_anew(site: UpdateSite) -> None:
    shutil.rmtree(site.state.releases)
    site.state.create()
    messages = site.look()
    (offer,) = [message.candidate for message in messages if isinstance(message, Offer)]
    (facts,) = [message.facts for message in messages if isinstance(message, Checking)]
    assert facts
    refused = {"rejected": (offer.manifest_sha256,), "serial": offer.serial}
    same = {offer.manifest_sha256: facts}
    assert names(site.look(**refused, refused_under=same)) == ["Trusted"]
    assert "Offer" in names(site.look(**refused, refused_under={offer.manifest_sha256: "an engine less"}))


def _sha(folder: Path) -> str:
    data = bytearray((folder / "padding.bin").read_bytes())
    data[0] ^= 1
    return hashlib.sha256(data).hexdigest()


def test_what_is_wrong_is_named(site: UpdateSite, release: Installed) -> None:
    flip(site.state.release(release.manifest_sha256) / "padding.bin", 0)
    (told,) = [message for message in look(site, release) if isinstance(message, Damaged)]
    assert "padding.bin: SHA-256 differs from the manifest" in told.text
