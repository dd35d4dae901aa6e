"""What `fleet gc` removes from a repository, and what it leaves alone."""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.makers import fleets
from support.makers.fleets import NOW, device_download, make_bundle, make_released

from edge_contracts.channel import channel_target, manifest_target
from edge_fleet.cli.fleet import fleet as fleet_command
from edge_fleet.errors import ReleaseError
from edge_fleet.releases.garbage import YOUNG, collect_garbage
from edge_fleet.releases.release import release
from edge_fleet.rollouts.channel_state import pause, resume
from edge_fleet.rollouts.rollout import change_rollout
from edge_fleet.signing.workspace import FleetWorkspace

LATER = NOW + YOUNG + timedelta(hours=1)


def files(fleet: FleetWorkspace) -> set[str]:
    return {str(path.relative_to(fleet.repository)) for path in fleet.repository.rglob("*") if path.is_file()}


@pytest.fixture
def fleet(tmp_path: Path) -> FleetWorkspace:
    """A fleet with a release, a rollout, and the blob of a release that was broken off."""
    fleet = make_released(tmp_path)
    fleets.start(fleet)
    orphan = fleet.repository / "blobs" / "ab" / ("ab" * 32)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"never signed")
    return fleet


def test_blob_of_a_release_that_was_broken_off_goes_once_it_is_old(fleet: FleetWorkspace) -> None:
    before = files(fleet)
    assert collect_garbage(fleet, NOW).files == 0
    counted = collect_garbage(fleet, LATER, dry=True)
    assert files(fleet) == before
    assert collect_garbage(fleet, LATER) == counted
    gone = before - files(fleet)
    assert len(gone) == counted.files
    assert [name for name in gone if name.startswith("blobs/")] == [f"blobs/ab/{'ab' * 32}"]


def test_documents_and_metadata_that_were_replaced_go_and_devices_get_all_the_rest(
    fleet: FleetWorkspace, tmp_path: Path
) -> None:
    change_rollout(fleet, "stable", pause, NOW)
    change_rollout(fleet, "stable", resume, NOW)
    roots = {name for name in files(fleet) if name.endswith(".root.json")}
    assert len([name for name in files(fleet) if name.startswith("targets/channels/")]) == 3
    collect_garbage(fleet, LATER)
    left = files(fleet)
    assert len([name for name in left if name.startswith("targets/channels/")]) == 1
    assert len([name for name in left if name.endswith(".snapshot.json")]) == 1
    assert roots <= left
    got = device_download(fleet, tmp_path, channel_target("stable"), manifest_target("har", "1.0.0"))
    assert None not in got
    release(fleet, make_bundle(tmp_path / "next", version="1.1.0", model=b"next" * 1000), NOW)


def test_blob_that_a_new_release_uses_again_is_young_again(fleet: FleetWorkspace, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "broken", version="2.0.0", model=b"again" * 1000)
    (bundle / "data" / "probe.npz").write_bytes(b"damaged")
    good = make_bundle(tmp_path / "good", version="2.0.0", model=b"again" * 1000)
    with pytest.raises(ReleaseError):
        release(fleet, bundle, NOW)
    release(fleet, good, NOW)
    shared = max(fleet.repository.glob("blobs/*/*"), key=lambda path: path.stat().st_mtime)
    os.utime(shared, (0, 0))
    release(fleet, good, NOW)
    assert time.time() - shared.stat().st_mtime < 60


def test_the_command_says_what_went(fleet: FleetWorkspace) -> None:
    for path in fleet.repository.rglob("*"):
        if path.is_file():
            os.utime(path, (0, 0))
    words = ["gc", str(fleet.path), "--json"]
    result = CliRunner().invoke(fleet_command, [*words, "--dry-run"], catch_exceptions=False)
    dry = json.loads(result.stdout)
    assert dry == json.loads(CliRunner().invoke(fleet_command, words, catch_exceptions=False).stdout)
    assert dry["files"] >= 1
    assert json.loads(CliRunner().invoke(fleet_command, words).stdout)["files"] == 0
