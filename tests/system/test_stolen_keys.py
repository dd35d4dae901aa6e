"""A thief of each key against a real device, and the runbook that ends it, run as it is written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.brokers.brokers import make_broker
from support.makers.forged_metadata import Forger
from support.sites.fleet_site import CHANNEL, MODEL, Site
from support.sites.runbooks import RUNBOOKS, Desk

from edge_contracts.channel import Channel, channel_target, family_target, manifest_target
from edge_contracts.codec import encode
from edge_contracts.limits import MAX_SERIAL
from edge_fleet.rollouts.rollout import find_release, read_channel
from edge_fleet.signing.workspace import FleetWorkspace, NewFleet, found
from edgewright.demo.stage import wait_for

pytestmark = pytest.mark.timeout(240)

FAR = 900_000_000
"""As far ahead as our own depot carries; test_clocks_and_recovery.py goes further."""


def steal(site: Site) -> Path:
    """Copy every key but the root's, and return the thief's folder of keys."""
    keys = site.folder / "stolen-keys"
    shutil.copytree(site.fleet / "keys", keys, ignore=shutil.ignore_patterns("root*"))
    return keys


def attack(site: Site, forged: Forger) -> None:
    """Let only the thief's depot answer until the device believes the thief's timestamp."""
    site.serve_only(forged.folder)
    version = forged.read("timestamp").signed.version
    wait_for("the thief is believed", lambda: site.status()["trusted"].get("timestamp") == version, timeout_s=40)


def answer_again(site: Site) -> None:
    """Let the fleet's own depot answer, and the thief's no more."""
    site.stop("attacker")
    site.start_depot()


def thief_is_refused(site: Site, forged: Forger) -> None:
    """The thief's repository, signed with the stolen keys once more, counts for nothing any more."""
    forged.publish(version=FAR + 9)
    site.serve_only(forged.folder)
    site.wait_for_refusal({"signature"})


@pytest.fixture
def desk(serving: Site) -> Desk:
    """A desk beside a site whose device serves 1.0.0; the root key is no longer in the fleet's folder."""
    return Desk(serving)


def test_stolen_rollouts_key_runbook_brings_devices_back_from_a_thiefs_channel(serving: Site, desk: Desk) -> None:
    serving.publish("1.1.0")
    serving.roll_out("1.1.0")
    serving.wait_for_state("committed", "1.1.0")
    forged = Forger(serving, serving.folder / "forged", steal(serving))
    reader = FleetWorkspace(serving.fleet).read(datetime.now(UTC))
    channel = read_channel(reader, CHANNEL)
    assert isinstance(channel, Channel)
    vulnerable = find_release(reader, MODEL, "1.0.0")
    evil = msgspec.structs.replace(channel, serial=MAX_SERIAL, candidate=vulnerable, rollout="evil")
    forged.list_target("rollouts", channel_target(CHANNEL), encode(evil), key="rollouts", version=FAR)
    forged.publish(version=FAR)
    attack(serving, forged)
    serving.wait_for_state("committed", "1.0.0")
    serving.serves("1.0.0")

    desk.follow("stolen-rollouts-key.md")
    answer_again(serving)
    serving.wait_for_state("committed", "1.1.0")
    serving.serves("1.1.0")
    thief_is_refused(serving, forged)
    serving.serves("1.1.0")


def test_stolen_releases_key_runbook_removes_the_thiefs_release(serving: Site, desk: Desk) -> None:
    stolen = steal(serving)
    serving.publish("1.1.0", padding=100)  # the thief's, from a build machine; rolled out in good faith
    serving.roll_out("1.1.0")
    serving.wait_for_state("committed", "1.1.0")
    shutil.copytree(serving.bundle("1.2.0"), desk.home / "bundle-1.2.0")

    desk.follow("stolen-releases-key.md")
    serving.wait_for_state("committed", "1.2.0")
    serving.serves("1.2.0")
    family = (
        FleetWorkspace(serving.fleet).read(datetime.now(UTC)).read_target(f"releases-{MODEL}", family_target(MODEL))
    )
    thiefs = sha256((serving.folder / "bundle-1.1.0/manifest.json").read_bytes()).hexdigest()
    assert family is not None
    assert thiefs.encode() in family

    forged = Forger(serving, serving.folder / "forged", stolen)
    again = (serving.folder / "bundle-1.1.0/manifest.json").read_bytes().replace(b'"1.1.0"', b'"1.3.0"')
    forged.list_target(f"releases-{MODEL}", manifest_target(MODEL, "1.3.0"), again, key="releases")
    forged.publish()
    serving.serve_only(forged.folder)
    serving.wait_for_refusal({"signature"})
    serving.serves("1.2.0")


def test_stolen_online_keys_runbook_undoes_a_freeze_and_a_fast_forward(serving: Site, desk: Desk) -> None:
    forged = Forger(serving, serving.folder / "forged", steal(serving))
    forged.publish(expires=datetime.now(UTC) + timedelta(days=3650), version=FAR)
    attack(serving, forged)
    answer_again(serving)
    serving.wait_for_refusal({"rollback"})

    desk.follow("stolen-online-keys.md")
    serving.publish("1.1.0")
    serving.roll_out("1.1.0")
    serving.wait_for_state("committed", "1.1.0")
    thief_is_refused(serving, forged)
    serving.serves("1.1.0")


@pytest.fixture
def shared_root(tmp_path: Path) -> Iterator[Site]:
    """A site whose fleet has three root keys, of which two must sign; its device serves 1.0.0."""
    with make_broker("embedded", tmp_path) as broker, Site(tmp_path, broker) as site:
        shutil.rmtree(site.fleet)
        found(site.fleet, NewFleet(families=(MODEL,), root_keys=3, root_threshold=2), datetime.now(UTC))
        site.install_root(site.fleet)
        site.publish("1.0.0")
        site.start_depot()
        site.start_agent()
        site.roll_out("1.0.0")
        site.wait_for_state("committed", "1.0.0")
        yield site


def test_stolen_root_key_runbook_replaces_one_of_three(shared_root: Site) -> None:
    desk = Desk(shared_root)
    (shared_root.fleet / "keys" / "root-3.pem").unlink()
    desk.follow("stolen-root-key.md", "Fewer keys than the threshold")
    shared_root.publish("1.1.0")
    shared_root.roll_out("1.1.0")
    shared_root.wait_for_state("committed", "1.1.0")
    wait_for("the new root is trusted", lambda: shared_root.status()["trusted"].get("root") == 2)


def test_stolen_threshold_of_root_keys_runbook_anchors_the_device_anew(serving: Site) -> None:
    desk = Desk(serving)
    shutil.copytree(serving.bundle("1.2.0"), desk.home / "bundle-1.2.0")
    serving.stop("depot")
    serving.stop("agent")
    desk.follow("stolen-root-key.md", "As many as the threshold")
    serving.start_depot(desk.home / "fleet-new")
    serving.start_agent()
    serving.wait_for_state("committed", "1.2.0")
    serving.serves("1.2.0")
    serving.serve_only(serving.fleet)
    serving.wait_for_refusal({"signature"})


def test_lost_keys_runbook_lets_rollouts_go_on(serving: Site, desk: Desk) -> None:
    (serving.fleet / "keys" / "rollouts.pem").unlink()
    desk.follow("lost-keys.md")
    serving.publish("1.1.0")
    serving.roll_out("1.1.0")
    serving.wait_for_state("committed", "1.1.0")


def test_expired_metadata_runbook_renews_everything(serving: Site) -> None:
    fleet, past = FleetWorkspace(serving.fleet), datetime.now(UTC) - timedelta(days=400)
    with fleet.change(past, ["root", "targets"]) as repository:
        repository.refresh(repository.roles()[:-2])
    desk = Desk(serving)
    serving.wait_for_refusal({"expired"})
    serving.serves("1.0.0")
    desk.follow("expired-metadata.md")
    desk.follow("expired-metadata.md", "Roles whose keys are here")
    serving.publish("1.1.0")
    serving.roll_out("1.1.0")
    serving.wait_for_state("committed", "1.1.0")
    assert all(role.expires > datetime.now(UTC) for role in _signed(fleet))


def test_every_runbook_has_its_test() -> None:
    followed = Path(__file__).read_text()
    for path in RUNBOOKS.glob("*.md"):
        assert f'follow("{path.name}"' in followed, path.name


def _signed(fleet: FleetWorkspace) -> list[Any]:
    repository = fleet.read(datetime.now(UTC))
    return [repository.open(role).signed for role in repository.roles()]
