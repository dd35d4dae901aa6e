"""Releases: what a bundle must be, and what never changes once it is signed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest
from support.makers import fleets
from support.makers.fleets import NOW, make_bundle

from edge_contracts.errors import ContractError
from edge_contracts.manifest import parse_manifest
from edge_fleet.errors import FleetError, ReleaseError, RolloutError
from edge_fleet.releases.release import add_family, blob_path, read_family, release, revoke, set_floor, versions
from edge_fleet.rollouts.rollout import find_release


def test_every_file_of_a_release_lies_under_its_hash(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    manifest = parse_manifest((tmp_path / "bundle/manifest.json").read_bytes())
    for entry in manifest.files:
        assert blob_path(fleet.repository, entry.sha256).read_bytes() == (tmp_path / "bundle" / entry.path).read_bytes()


def test_releasing_the_same_bytes_again_changes_nothing(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    before = (fleet.repository / "metadata/timestamp.json").read_bytes()
    assert not release(fleet, tmp_path / "bundle", NOW).new
    assert (fleet.repository / "metadata/timestamp.json").read_bytes() == before


def test_other_bytes_under_a_released_version_are_refused(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    with pytest.raises(ReleaseError, match="different contents"):
        release(fleet, make_bundle(tmp_path / "other", model=b"different"), NOW)


def test_a_changed_file_is_named_and_not_released(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    bundle = make_bundle(tmp_path / "bundle")
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[70_000] ^= 1
    (bundle / "model.onnx").write_bytes(data)
    with pytest.raises(ReleaseError, match=r"model\.onnx: chunk 1 differs"):
        release(fleet, bundle, NOW)
    assert not list((fleet.repository / "blobs").iterdir())


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (bundle / "data/probe.npz").write_bytes(b"pro")
    with pytest.raises(ReleaseError, match=r"data/probe\.npz: 3 bytes, the manifest says 5"):
        release(fleets.make_fleet(tmp_path), bundle, NOW)


def test_chunks_that_hold_under_a_wrong_whole_hash_are_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    manifest = parse_manifest((bundle / "manifest.json").read_bytes())
    files = tuple(msgspec.structs.replace(entry, sha256="0" * 64) for entry in manifest.files)
    (bundle / "manifest.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, files=files)))
    with pytest.raises(ReleaseError, match="differs from the manifest"):
        release(fleets.make_fleet(tmp_path), bundle, NOW)


@pytest.mark.parametrize("path", ["model.onnx", "data", "manifest.json"])
def test_a_symbolic_link_in_a_bundle_is_refused(tmp_path: Path, path: str) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (bundle / path).rename(tmp_path / "outside")
    (bundle / path).symlink_to(tmp_path / "outside")
    with pytest.raises(ReleaseError, match="not a regular file"):
        release(fleets.make_fleet(tmp_path), bundle, NOW)


def test_a_pipe_in_a_bundle_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (bundle / "model.onnx").unlink()
    os.mkfifo(bundle / "model.onnx")
    with pytest.raises(ReleaseError, match="not a regular file"):
        release(fleets.make_fleet(tmp_path), bundle, NOW)


def test_a_path_that_leaves_the_bundle_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text.replace("data/probe.npz", "../secret"))
    with pytest.raises(ContractError, match="not a path inside the bundle"):
        release(fleets.make_fleet(tmp_path), bundle, NOW)


def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    with pytest.raises(ReleaseError, match="not a bundle folder"):
        release(fleet, tmp_path / "nothing", NOW)
    with pytest.raises(ReleaseError, match=r"manifest\.json"):
        release(fleet, tmp_path, NOW)


def test_versions_are_listed_by_semantic_precedence(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path, "1.10.0")
    for version in ("1.9.0", "1.10.0-rc.1"):
        release(fleet, make_bundle(tmp_path / version, version=version), NOW)
    assert versions(fleet.read(NOW), "har") == ["1.9.0", "1.10.0-rc.1", "1.10.0"]


def test_a_release_below_the_floor_cannot_be_rolled_out(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    release(fleet, make_bundle(tmp_path / "b2", version="1.1.0"), NOW)
    assert set_floor(fleet, "har", "1.1.0", NOW).serial == 2
    with pytest.raises(RolloutError, match=r"minimum version 1\.1\.0"):
        find_release(fleet.read(NOW), "har", "1.0.0")
    assert find_release(fleet.read(NOW), "har", "1.1.0").version == "1.1.0"


def test_a_floor_that_no_release_reaches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="no release of har"):
        set_floor(fleets.make_released(tmp_path), "har", "10.0.0", NOW)


def test_a_revoked_release_cannot_be_rolled_out(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    revoke(fleet, "har", "1.0.0", NOW)
    assert len(revoke(fleet, "har", "1.0.0", NOW).revoked) == 1
    with pytest.raises(RolloutError, match="revoked"):
        find_release(fleet.read(NOW), "har", "1.0.0")


def test_an_unknown_version_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"released: 1\.0\.0"):
        find_release(fleets.make_released(tmp_path).read(NOW), "har", "2.0.0")


def test_a_family_without_releases_says_so(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path, families=("har",))
    with pytest.raises(FleetError, match="no releases in this family"):
        read_family(fleet.read(NOW), "har")
    with pytest.raises(FleetError, match="this family exists"):
        add_family(fleet, "har", NOW)


@pytest.mark.parametrize("family", ["../x", "a/b", "*", ""])
def test_a_family_name_that_is_a_pattern_or_a_path_is_refused(tmp_path: Path, family: str) -> None:
    with pytest.raises(ContractError):
        add_family(fleets.make_fleet(tmp_path), family, NOW)


def test_a_moved_fleet_folder_works_where_it_is(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    shutil.move(fleet.path, tmp_path / "moved")
    assert versions(type(fleet)(tmp_path / "moved").read(NOW), "har") == ["1.0.0"]


def test_a_release_that_is_not_ours_is_revoked_by_its_hash(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    assert revoke(fleet, "har", "ab" * 32, fleets.NOW).revoked == ("ab" * 32,)
    with pytest.raises(FleetError, match="not released"):
        revoke(fleet, "har", "AB" * 32, fleets.NOW)
