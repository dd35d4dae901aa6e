"""The signed repository as a device's real TUF client sees it, and what stolen keys cannot do."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from support.makers import fleets
from support.makers.fleets import NOW, device_download
from tuf.api.exceptions import DownloadHTTPError, ExpiredMetadataError, UnsignedMetadataError
from tuf.api.metadata import Metadata, TargetFile

from edge_contracts.channel import parse_channel, parse_family
from edge_contracts.errors import ContractError
from edge_fleet.errors import FleetError, KeyMissingError, RepositoryError
from edge_fleet.releases.release import add_family, release
from edge_fleet.rollouts import channel_state
from edge_fleet.rollouts.rollout import change_rollout
from edge_fleet.signing.keys import RELEASES, ROLLOUTS
from edge_fleet.signing.refresh import ONLINE_ROLES, is_due, refresh
from edge_fleet.signing.roles import Lifetimes
from edge_fleet.signing.workspace import FleetWorkspace, NewFleet, found

MANIFEST = "models/har/1.0.0/manifest.json"


def test_a_device_downloads_channel_manifest_and_family_verified(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    fleets.start(fleet)
    channel, manifest, family = device_download(
        fleet, tmp_path, "channels/stable.json", MANIFEST, "models/har/family.json"
    )
    assert channel is not None
    assert family is not None
    offered = parse_channel(channel)
    assert manifest == (tmp_path / "bundle/manifest.json").read_bytes()
    assert offered.candidate is not None
    assert offered.candidate.version == "1.0.0"
    assert offered.stable is None
    assert parse_family(family).minimum_version == "0.0.0"


def test_a_device_follows_change_after_change(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    fleets.start(fleet)
    device_download(fleet, tmp_path)
    change_rollout(fleet, "stable", channel_state.finish, NOW)
    release(fleet, fleets.make_bundle(tmp_path / "b2", version="1.1.0", model=b"new"), NOW)
    fleets.start(fleet, "1.1.0")
    (data,) = device_download(fleet, tmp_path, "channels/stable.json")
    assert data is not None
    channel = parse_channel(data)
    assert (channel.serial, channel.stable.version, channel.candidate.version) == (3, "1.0.0", "1.1.0")


def test_the_rollouts_key_cannot_introduce_a_release(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    with fleet.change(NOW, [ROLLOUTS]) as repository, pytest.raises(FleetError, match="may not sign"):
        repository.put_target(ROLLOUTS, "models/har/9.9.9/manifest.json", b"{}")
    _list_without_asking(fleet, ROLLOUTS, "models/har/9.9.9/manifest.json", b"{}")
    assert device_download(fleet, tmp_path, "models/har/9.9.9/manifest.json") == [None]


def test_the_releases_key_cannot_sign_a_channel(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    _list_without_asking(fleet, "releases-har", "channels/stable.json", b"{}")
    assert device_download(fleet, tmp_path, "channels/stable.json") == [None]


def test_the_role_of_one_family_cannot_sign_another_familys_release(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    add_family(fleet, "other", NOW)
    release(fleet, fleets.make_bundle(tmp_path / "b2", name="other"), NOW)
    _list_without_asking(fleet, "releases-har", "models/other/2.0.0/manifest.json", b"{}")
    assert device_download(fleet, tmp_path, "models/other/2.0.0/manifest.json") == [None]


def test_metadata_signed_by_the_wrong_role_is_refused_by_the_device(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    fleets.start(fleet)
    repository = fleet.read(NOW)
    current = repository.current_files()
    path = next(path for path in current if path.name.endswith(".rollouts.json"))
    metadata = Metadata.from_bytes(path.read_bytes())
    key = fleet.keys.public(RELEASES)
    (signer,) = fleet.keys.signers(RELEASES, [key], 1)
    metadata.sign(signer)
    path.write_bytes(metadata.to_bytes())
    with pytest.raises(UnsignedMetadataError):
        device_download(fleet, tmp_path, "channels/stable.json")


def test_expired_metadata_is_refused_and_refreshing_heals_it(tmp_path: Path) -> None:
    fleet = found(tmp_path / "fleet", NewFleet(), NOW - timedelta(days=2))
    with pytest.raises(ExpiredMetadataError):
        device_download(fleet, tmp_path)
    assert refresh(fleet, NOW, ONLINE_ROLES).signed == ("timestamp",)
    device_download(fleet, tmp_path)


def test_refresh_signs_what_has_a_key_and_names_what_has_none(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    (fleet.keys.folder / "root.pem").unlink()
    late = NOW + timedelta(days=80)
    done = refresh(fleet, late)
    assert set(done.signed) == {"rollouts", "releases-har", "snapshot", "timestamp"}
    assert set(done.missing) == {"targets"}
    assert refresh(fleet, late).signed == ()


def test_the_root_can_be_signed_again_and_devices_follow(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path, root_threshold=2)
    device_download(fleet, tmp_path)
    done = refresh(fleet, NOW + timedelta(days=200), ["root"])
    assert done.signed == ("root",)
    device_download(fleet, tmp_path)
    assert json.loads((tmp_path / "tuf/root.json").read_text())["signed"]["version"] == 2


def test_metadata_is_due_from_half_of_its_lifetime() -> None:
    expires = NOW + timedelta(hours=12)
    assert is_due(expires, timedelta(days=1), NOW)
    assert not is_due(expires, timedelta(days=1), NOW - timedelta(seconds=1))


def test_a_threshold_of_root_keys_is_needed_for_a_new_family(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path, root_threshold=2)
    (fleet.keys.folder / "root-2.pem").unlink()
    with pytest.raises(KeyMissingError, match=r"needs 2 key\(s\), 1 available.*root-2\.pem"):
        add_family(fleet, "har", NOW)


def test_more_root_keys_than_are_needed_can_be_made_and_never_fewer(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path, root_keys=3, root_threshold=2)
    (fleet.keys.folder / "root-2.pem").unlink()
    add_family(fleet, "har", NOW)
    device_download(fleet, tmp_path)
    with pytest.raises(FleetError, match="never give 2"):
        fleets.make_fleet(tmp_path / "other", root_keys=1, root_threshold=2)


def test_a_change_that_fails_half_way_is_invisible_and_the_next_one_is_whole(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    with pytest.raises(FleetError), fleet.change(NOW, [ROLLOUTS]) as repository:  # noqa: PT012
        repository.put_target(ROLLOUTS, "channels/stable.json", b"half")
        repository.put_target(ROLLOUTS, "models/har/1.0.0/manifest.json", b"forbidden")
    assert device_download(fleet, tmp_path / "one", "channels/stable.json") == [None]
    fleets.start(fleet)
    assert device_download(fleet, tmp_path / "two", "channels/stable.json") != [None]


def test_a_power_cut_before_the_timestamp_leaves_the_old_state_and_can_be_repeated(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    timestamp = fleet.repository / "metadata/timestamp.json"
    before = timestamp.read_bytes()
    fleets.start(fleet)
    timestamp.write_bytes(before)
    assert device_download(fleet, tmp_path / "one", "channels/stable.json") == [None]
    assert fleets.start(fleet).serial == 1
    assert device_download(fleet, tmp_path / "two", "channels/stable.json") != [None]


def test_everything_published_is_world_readable(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    for path in fleet.repository.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


def test_an_existing_fleet_is_never_founded_again(tmp_path: Path) -> None:
    fleets.make_fleet(tmp_path)
    with pytest.raises(FleetError, match="a fleet exists"):
        fleets.make_fleet(tmp_path)


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    (fleet.path / "fleet.toml").write_text('tenant = "a"\n[expiry_days]\ntimestamp = 0\n')
    with pytest.raises(ContractError, match=r"fleet\.toml\.expiry_days\.timestamp"):
        FleetWorkspace(fleet.path)


def test_lifetimes_written_at_founding_are_read_back(tmp_path: Path) -> None:
    lifetimes = Lifetimes(timestamp=0.5, releases=30.0)
    assert fleets.make_fleet(tmp_path, expiry_days=lifetimes).settings.expiry_days == lifetimes


def test_a_damaged_target_is_named_and_not_signed_over(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    fleets.start(fleet)
    (document,) = (fleet.repository / "targets/channels").iterdir()
    document.write_bytes(b"{}")
    with pytest.raises(RepositoryError, match=r"stable\.json"):
        change_rollout(fleet, "stable", channel_state.pause, NOW)


def test_the_fetcher_of_these_tests_says_not_found_as_a_carrier_does(tmp_path: Path) -> None:
    with pytest.raises(DownloadHTTPError):
        list(fleets.FolderFetcher()._fetch(f"folder:{tmp_path}/nothing"))


def _list_without_asking(fleet: FleetWorkspace, role: str, path: str, data: bytes) -> None:
    """What a thief of one role's key can publish: any path in that role's metadata."""
    entry = TargetFile.from_data(path, data, ["sha256"])
    with fleet.change(NOW, [role]) as repository, repository.edit_targets(role) as targets:
        targets.targets[path] = entry
