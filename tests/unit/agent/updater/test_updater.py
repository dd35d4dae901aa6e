"""The updater against real signed repositories: what arrives is what was signed, or nothing."""

from __future__ import annotations

import json
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
import pytest
from support.sites.update_site import CHANNEL, MODEL, TamperingCarrier, UpdateSite, names, troubles

from edge_agent.errors import UnreachableError
from edge_agent.ipc.updater import FromUpdater, Offer, Trusted
from edge_agent.ports import ObjectKind, Transport
from edge_agent.updater.__main__ import Updater
from edge_agent.updater.chunks import BITMAP
from edge_agent.updater.transports.directory import DirectoryTransport
from edge_contracts import limits
from edge_contracts.channel import RetryRule
from edge_contracts.manifest import Requirements
from edge_contracts.selector import Selector
from edge_fleet.releases.release import revoke, set_floor
from edge_fleet.rollouts.channel_state import pause, resume, retry
from edge_fleet.rollouts.rollout import change_rollout


@pytest.fixture
def site(tmp_path: Path) -> UpdateSite:
    site = UpdateSite(tmp_path)
    site.release("1.0.0", padding=300_000)
    site.start("1.0.0")
    return site


def test_wished_release_is_fetched_and_stored(site: UpdateSite) -> None:
    messages = site.look()
    assert names(messages) == ["Trusted", "Offer", "Checking", "Fetching", "Stored"]
    offer = next(message for message in messages if isinstance(message, Offer))
    folder = site.state.release(offer.candidate.manifest_sha256)
    original = site.folder / "bundle-1.0.0"
    for path in original.rglob("*"):
        if path.is_file():
            assert (folder / path.relative_to(original)).read_bytes() == path.read_bytes()
    assert not list(folder.rglob(BITMAP))
    assert not list(site.state.downloads.iterdir())


def test_rejected_release_is_not_fetched_again_under_the_same_serial(site: UpdateSite) -> None:
    offer = next(message for message in site.look() if isinstance(message, Offer))
    wish = offer.candidate
    assert names(site.look(rejected=(wish.manifest_sha256,), serial=wish.serial)) == ["Trusted"]
    assert "Offer" in names(site.look(rejected=(wish.manifest_sha256,), serial=wish.serial - 1))


def test_release_at_hand_is_offered_and_not_fetched(site: UpdateSite) -> None:
    offer = next(message for message in site.look() if isinstance(message, Offer))
    assert names(site.look(ready=(offer.candidate.manifest_sha256,))) == ["Trusted", "Offer"]


def test_paused_rollout_holds(site: UpdateSite) -> None:
    change_rollout(site.fleet, CHANNEL, pause, site.now)
    assert names(site.look()) == ["Trusted", "Hold"]


def test_release_below_the_floor_is_refused(site: UpdateSite) -> None:
    site.release("2.0.0")
    set_floor(site.fleet, MODEL, "2.0.0", site.now)
    assert troubles(site.look()) == [("operator", "below-minimum")]


def test_revoked_release_is_withdrawn(site: UpdateSite) -> None:
    offer = next(message for message in site.look() if isinstance(message, Offer))
    revoke(site.fleet, MODEL, "1.0.0", site.now)
    assert "Withdraw" in names(site.look(running=(offer.candidate.manifest_sha256,)))


def test_missing_requirements_refuse_before_the_first_byte(tmp_path: Path) -> None:
    site = UpdateSite(tmp_path)
    site.release("1.0.0", requirements=Requirements(architectures=("riscv64",)))
    site.start("1.0.0")

    counting = Interrupted(DirectoryTransport(site.repository), 10**6)
    messages = site.look(counting)
    assert counting.blobs == 0
    assert troubles(messages) == [("device", "architecture")]


# Attacks


@pytest.mark.parametrize("target", ["manifest.json", "test.json", "family.json"])
def test_tampered_document_is_refused(site: UpdateSite, target: str) -> None:
    messages = site.look(TamperingCarrier(site.carrier, target, lambda data: data.replace(b":", b" :", 1)[: len(data)]))
    assert troubles(messages) == [("trust", "hash-mismatch")]
    assert not list(site.state.releases.iterdir())


def test_replayed_old_repository_is_refused(site: UpdateSite) -> None:
    old = site.keep_copy("old")
    site.release("1.1.0")
    site.look()
    assert troubles(site.look(DirectoryTransport(old))) == [("trust", "rollback")]


def test_replay_is_refused_even_with_the_trusted_files_gone(site: UpdateSite) -> None:
    old = site.keep_copy("old")
    site.release("1.1.0")
    site.look()
    shutil.rmtree(site.state.tuf / "trusted")
    assert troubles(site.look(DirectoryTransport(old))) == [("trust", "rollback")]


def test_wrong_signer_is_refused(site: UpdateSite, tmp_path: Path) -> None:
    other = UpdateSite(tmp_path / "other")
    other.release("6.6.6")
    other.start("6.6.6")
    assert troubles(site.look(DirectoryTransport(other.repository))) == [("trust", "signature")]


def test_frozen_repository_is_refused(tmp_path: Path) -> None:
    site = UpdateSite(tmp_path, datetime.now(UTC) - timedelta(days=3))
    site.release("1.0.0")
    site.start("1.0.0")
    assert troubles(site.look()) == [("trust", "expired")]


def test_clock_set_to_1970_does_not_revive_expired_metadata(
    site: UpdateSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stale = UpdateSite(tmp_path / "stale", datetime.now(UTC) - timedelta(days=3))
    stale.release("1.0.0")
    stale.start("1.0.0")
    old = stale.keep_copy("old")
    stale.sign_again(timedelta(days=3))
    assert "Stored" in names(stale.look())
    shutil.rmtree(stale.state.tuf / "trusted")
    monkeypatch.setattr(time, "time", lambda: 5.0)
    assert troubles(stale.look(DirectoryTransport(old)))[0][0] == "trust"


def test_clock_set_to_1970_does_not_lock_the_device_out(site: UpdateSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site.look()
    site.release("1.1.0")
    site.start("1.1.0")
    monkeypatch.setattr(time, "time", lambda: 5.0)
    assert "Stored" in names(site.look())


def test_clock_far_ahead_does_not_lock_the_device_out(site: UpdateSite, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time", lambda: 4e9)
        assert troubles(site.look()) == [("trust", "expired")]
    assert "Stored" in names(site.look())


def test_oversized_metadata_is_refused(site: UpdateSite) -> None:
    endless = TamperingCarrier(site.carrier, "timestamp.json", lambda data: data + b" " * 60_000, 10 * limits.MIB)
    assert troubles(site.look(endless)) == [("trust", "too-large")]


def test_endless_manifest_is_cut_off_at_its_signed_length(site: UpdateSite) -> None:
    endless = TamperingCarrier(site.carrier, "manifest.json", lambda _data: b" " * 60_000, 10**12)
    assert troubles(site.look(endless)) == [("trust", "too-large")]


def test_unsigned_channel_is_refused(tmp_path: Path) -> None:
    site = UpdateSite(tmp_path)
    site.release("1.0.0")
    assert troubles(site.look()) == [("trust", "not-found")]


def test_damaged_chunks_are_asked_again_within_the_budget(site: UpdateSite) -> None:
    messages = site.look(Reversing(DirectoryTransport(site.repository)))
    assert troubles(messages)[0][0] == "transport"
    assert troubles(messages)[0][1] in ("damaged", "byte-budget")
    assert not list(site.state.releases.iterdir())


def test_damaged_chunk_is_asked_for_as_often_as_the_profile_allows(site: UpdateSite) -> None:
    counting = Interrupted(Reversing(DirectoryTransport(site.repository)), 10**6)
    profile = site.folder / "patient.toml"
    profile.write_text(PROFILE)
    messages: list[FromUpdater] = []
    plan = msgspec.structs.replace(site.plan(), profile=str(profile))
    Updater(plan, counting, messages.append).run()
    assert troubles(messages) == [("transport", "damaged")]
    assert counting.blobs == 3


PROFILE = """\
name = "patient"
engines = ["onnxruntime"]
board = {description = "any", architecture = "x86_64", cores = 1, memory_mb = 64, source = "this test"}
network = {retries = 3, window = 1}
"""


class Reversing:
    """Brings every blob backwards."""

    def __init__(self, inner: DirectoryTransport) -> None:
        self._inner = inner

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        data, total = self._inner.read(kind, name, offset, length)
        return (data[::-1] if kind == "blob" else data), total


# Resuming


class Interrupted:
    """Brings blobs until `left` are used up; counts what it brought."""

    def __init__(self, inner: Transport, left: int) -> None:
        self._inner, self.left, self.blobs = inner, left, 0
        self._lock = threading.Lock()

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        if kind == "blob":
            with self._lock:
                if self.left <= 0:
                    raise UnreachableError("gone")
                self.left -= 1
                self.blobs += 1
        return self._inner.read(kind, name, offset, length)


def test_interrupted_download_fetches_only_what_is_missing(site: UpdateSite) -> None:
    inner = DirectoryTransport(site.repository)
    first = Interrupted(inner, 3)
    assert troubles(site.look(first)) == [("transport", "unreachable")]
    rest = Interrupted(inner, 10**6)
    messages = site.look(rest)
    assert names(messages)[-1] == "Stored"
    whole = sum(len(entry["chunks"]) for entry in json.loads(_manifest(site))["files"])
    assert first.blobs + rest.blobs == whole


def test_chunk_damaged_on_the_disk_is_fetched_again(site: UpdateSite) -> None:
    site.look(Interrupted(DirectoryTransport(site.repository), 3))
    (partial,) = site.state.downloads.iterdir()
    for path in partial.rglob("*"):
        if path.is_file() and path.name != BITMAP:
            path.write_bytes(b"\xff" * path.stat().st_size)
    assert names(site.look())[-1] == "Stored"


def test_files_of_an_installed_release_are_not_fetched_again(site: UpdateSite) -> None:
    site.look()
    site.release("1.1.0", padding=300_000, license="changed")
    site.start("1.1.0")
    counting = Interrupted(DirectoryTransport(site.repository), 10**6)
    assert names(site.look(counting))[-1] == "Stored"
    assert counting.blobs == 0


def test_used_up_day_budget_stops_before_the_first_byte(site: UpdateSite) -> None:
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    site.state.traffic.write_text(json.dumps({"day": today, "used": 2**40}))
    messages = site.look(over_network=True)
    assert troubles(messages) == [("transport", "byte-budget")]


def _manifest(site: UpdateSite) -> bytes:
    (release,) = site.state.releases.iterdir()
    return (release / "manifest.json").read_bytes()


@pytest.mark.parametrize(
    ("devices", "reasons", "again"),
    [
        (("dev-1",), (), True),
        (("dev-2",), (), False),
        ((), ("crash-loop",), True),
        ((), ("hung",), False),
        (("dev-1",), ("hung",), False),
        (("dev-2", "dev-1"), ("hung", "crash-loop"), True),
    ],
)
def test_retry_is_for_the_devices_and_reasons_it_names(
    site: UpdateSite, devices: tuple[str, ...], reasons: tuple[str, ...], again: bool
) -> None:
    wish = next(message for message in site.look() if isinstance(message, Offer)).candidate
    change_rollout(site.fleet, CHANNEL, partial(retry, devices=devices, reasons=reasons), site.now)
    refused = {"rejected": (wish.manifest_sha256,), "serial": wish.serial, "reason": "crash-loop"}
    assert ("Offer" in names(site.look(**refused))) == again


def test_device_that_missed_the_retry_tries_again_with_the_next_document(site: UpdateSite) -> None:
    wish = next(message for message in site.look() if isinstance(message, Offer)).candidate
    change_rollout(site.fleet, CHANNEL, partial(retry, devices=("dev-2",)), site.now)
    change_rollout(site.fleet, CHANNEL, pause, site.now)
    change_rollout(site.fleet, CHANNEL, resume, site.now)
    assert "Offer" in names(site.look(rejected=(wish.manifest_sha256,), serial=wish.serial, reason="hung"))


@pytest.mark.parametrize(
    ("reason", "retried", "since_s", "offered"),
    [("hung", 0, 61.0, True), ("hung", 0, 30.0, False), ("hung", 1, 61.0, False), ("crash-loop", 0, 61.0, False)],
)
def test_release_that_was_given_up_is_tried_again_by_the_channels_rule(
    site: UpdateSite, reason: str, retried: int, since_s: float, offered: bool
) -> None:
    site.release("1.1.0")
    site.start("1.1.0", retries=(RetryRule(reason="hung", attempts=1, wait_s=60.0),))
    wish = next(message for message in site.look() if isinstance(message, Offer)).candidate
    sha = wish.manifest_sha256
    given_up = {"rejected": (sha,), "serial": wish.serial, "reason": reason, "retried": {sha: retried}}
    found = [said for said in site.look(**given_up, since=time.time() - since_s) if isinstance(said, Offer)]
    assert [(offer.candidate.version, offer.retry) for offer in found] == ([("1.1.0", True)] if offered else [])


@pytest.mark.parametrize(("bound", "offered"), [("1", True), ("100000000", False)])
def test_a_device_selects_itself_by_its_memory_and_says_what_it_has(
    site: UpdateSite, bound: str, offered: bool
) -> None:
    site.release("1.1.0")
    site.start("1.1.0", selectors=(Selector(fact="memory_mb", at_least=bound),))
    said = site.look()
    trusted = next(message for message in said if isinstance(message, Trusted))
    assert float(trusted.facts["memory_mb"]) > 1
    versions = [message.candidate.version for message in said if isinstance(message, Offer)]
    assert versions == (["1.1.0"] if offered else ["1.0.0"])
