"""Bytes that cannot be what they should be are a reason to ask the next carrier, and the carrier is named."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.sites.update_site import TamperingCarrier, UpdateSite, names, troubles

from edge_agent.errors import NotFoundError, UnreachableError
from edge_agent.ipc.updater import CarrierFailed, FromUpdater, Trouble, Trusted
from edge_agent.ports import ObjectKind, Transport
from edge_agent.storage.state_dir import StateFolder
from edge_agent.updater.__main__ import Updater, carrier_failed
from edge_agent.updater.transports.directory import DirectoryTransport
from edge_agent.updater.transports.fallback import FallbackTransport

PORTAL = b"<html><title>Welcome</title>Please log in</html>"


@pytest.fixture
def site(tmp_path: Path) -> UpdateSite:
    site = UpdateSite(tmp_path)
    site.release("1.0.0", padding=300_000)
    site.start("1.0.0")
    return site


class Portal:
    """Answers everything with its own page."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        self.asked.append(f"{kind}/{name}")
        return PORTAL[offset : offset + length], len(PORTAL)


class Without:
    """Another carrier that lacks what `gone` says of an object's kind and name."""

    def __init__(self, inner: Transport, gone: Callable[[str], bool]) -> None:
        self._inner, self._gone = inner, gone

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        if self._gone(f"{kind}/{name}"):
            raise NotFoundError("HTTP status 404", subject=name)
        return self._inner.read(kind, name, offset, length)


class Dead:
    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        raise UnreachableError("no reply")


def look(site: UpdateSite, *carriers: Transport, announced: int = 0) -> list[FromUpdater]:
    """Run an updater that asks the first carrier as "mirror" and the second as "depot"."""
    said: list[FromUpdater] = []
    both = FallbackTransport(
        dict(zip(("mirror", "depot"), carriers, strict=False)),
        lambda name, error: said.append(carrier_failed(name, error)),
    )
    Updater(replace(site.plan(), announced=announced), both, said.append).run()
    return said


def failures(said: list[FromUpdater]) -> set[tuple[str, str]]:
    return {(news.carrier, news.reason) for news in said if isinstance(news, CarrierFailed)}


def test_a_captive_portal_is_asked_once_and_the_depot_brings_the_release(site: UpdateSite) -> None:
    portal = Portal()
    said = look(site, portal, DirectoryTransport(site.repository))
    assert names(said)[-1] == "Stored"
    assert not troubles(said)
    assert failures(said) == {("mirror", "malformed")}
    assert len(portal.asked) == 1


@pytest.mark.parametrize("gone", ["metadata/snapshot", "metadata/rollouts", "manifest.json", "channels/", "blob/"])
def test_a_mirror_that_is_synced_by_half_is_completed_by_the_depot(site: UpdateSite, gone: str) -> None:
    half = Without(DirectoryTransport(site.repository), lambda path: gone.split("/")[-1] in path or gone in path)
    said = look(site, half, DirectoryTransport(site.repository))
    assert names(said)[-1] == "Stored", said
    assert not troubles(said)
    assert ("mirror", "not-found") in failures(said)


@pytest.mark.parametrize("target", ["manifest.json", "padding", "test.json"])
def test_wrong_bytes_of_one_object_come_from_the_depot(site: UpdateSite, target: str) -> None:
    class Spoiled:
        inner = DirectoryTransport(site.repository)

        def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
            data, total = self.inner.read(kind, name, offset, length)
            wrong = kind == "blob" if target == "padding" else name.endswith(target) and kind == "target"
            return (bytes(len(data)) if wrong else data), total

    said = look(site, Spoiled(), DirectoryTransport(site.repository))
    assert names(said)[-1] == "Stored", said
    assert not troubles(said)
    assert {name for name, _ in failures(said)} == {"mirror"}


def test_a_copy_older_than_what_was_seen_is_left_for_the_next_carrier(site: UpdateSite) -> None:
    old = site.keep_copy("old")
    site.sign_again(timedelta(hours=13))
    look(site, DirectoryTransport(site.repository))
    said = look(site, DirectoryTransport(old), DirectoryTransport(site.repository))
    assert failures(said) == {("mirror", "rollback")}
    assert not troubles(said)


def test_a_copy_older_than_what_was_announced_is_left_for_the_next_carrier(site: UpdateSite) -> None:
    old = site.keep_copy("old")
    site.sign_again(timedelta(hours=13))
    newest = next(news for news in look(site, DirectoryTransport(site.repository)) if isinstance(news, Trusted))
    site.state = StateFolder(site.folder / "another device")
    site.state.create()
    announced = newest.versions["timestamp"]
    said = look(site, DirectoryTransport(old), DirectoryTransport(site.repository), announced=announced)
    assert failures(said) == {("mirror", "stale")}
    assert next(news for news in said if isinstance(news, Trusted)).versions["timestamp"] == announced


def test_an_announcement_that_nobody_can_keep_changes_nothing(site: UpdateSite) -> None:
    said = look(site, DirectoryTransport(site.repository), Portal(), announced=9999)
    assert names(said)[-1] == "Stored", said
    assert not troubles(said)


def test_when_no_carrier_has_it_the_gravest_answer_counts_and_names_its_carrier(site: UpdateSite) -> None:
    said = look(site, Portal(), Dead())
    (trouble,) = [message for message in said if isinstance(message, Trouble)]
    assert (trouble.fault, trouble.reason) == ("trust", "malformed")
    assert trouble.text.endswith("(from mirror)")
    assert failures(said) == {("mirror", "malformed"), ("depot", "unreachable")}


def test_the_only_carrier_is_named_too(site: UpdateSite) -> None:
    (trouble,) = [message for message in look(site, Portal()) if isinstance(message, Trouble)]
    assert trouble.text.endswith("(from mirror)")


def test_a_target_that_nobody_signed_is_no_carriers_fault(site: UpdateSite) -> None:
    said = look(site, DirectoryTransport(site.repository), DirectoryTransport(site.repository))
    assert not failures(said)  # there are no deltas, and that is signed


def test_a_forged_document_is_refused_whichever_carrier_brings_it(site: UpdateSite) -> None:
    forged = TamperingCarrier(
        DirectoryTransport(site.repository), "timestamp.json", lambda data: data.replace(b"1", b"2")
    )
    said = look(site, forged, forged)
    assert [fault for fault, _ in troubles(said)] == ["trust"]
    assert "Stored" not in names(said)
