"""Keys: who can read them, where they may lie, and what is said when one is missing."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from support.makers import fleets

from edge_fleet.errors import FleetError, KeyExposedError, KeyMissingError
from edge_fleet.releases.release import release
from edge_fleet.signing.keys import KeyRing


def test_private_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    private = sorted(fleet.keys.folder.glob("*.pem"))
    assert [path.stem for path in private] == ["releases", "rollouts", "root", "snapshot", "timestamp"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert stat.S_IMODE(fleet.keys.folder.stat().st_mode) == 0o700


def test_keys_inside_a_git_work_tree_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    with pytest.raises(KeyExposedError, match="git work tree"):
        fleets.make_fleet(tmp_path)
    assert not (tmp_path / "fleet").exists()


def test_a_git_worktree_or_submodule_whose_dot_git_is_a_file_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: elsewhere")
    with pytest.raises(KeyExposedError):
        KeyRing(tmp_path / "deep" / "keys").create(["root"])


def test_an_existing_key_is_never_overwritten(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    ring.create(["root"])
    before = (tmp_path / "root.pem").read_bytes()
    with pytest.raises(FleetError, match="never overwritten"):
        ring.create(["root"])
    assert (tmp_path / "root.pem").read_bytes() == before


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    (fleet.keys.folder / "releases.pem").chmod(0o644)
    with pytest.raises(KeyExposedError, match=r"releases\.pem") as caught:
        release(fleet, fleets.make_bundle(tmp_path / "bundle"), fleets.NOW)
    assert "chmod 600" in str(caught.value.hint)


def test_a_private_key_under_a_wrong_name_signs_nothing(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path, families=("har",))
    (fleet.keys.folder / "rollouts.pem").rename(fleet.keys.folder / "releases.pem")
    with pytest.raises(FleetError, match=r"releases\.pem: does not belong"):
        release(fleet, fleets.make_bundle(tmp_path / "bundle"), fleets.NOW)


def test_a_missing_key_is_named_by_its_file_and_nothing_changes(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path, families=("har",))
    (fleet.keys.folder / "releases.pem").rename(tmp_path / "elsewhere.pem")
    before = (fleet.repository / "metadata/timestamp.json").read_bytes()
    with pytest.raises(KeyMissingError, match=r"keys/releases\.pem"):
        release(fleet, fleets.make_bundle(tmp_path / "bundle"), fleets.NOW)
    assert (fleet.repository / "metadata/timestamp.json").read_bytes() == before
    assert not list((fleet.repository / "blobs").iterdir())


def test_a_new_family_without_the_root_key_names_the_command_for_it(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    (fleet.keys.folder / "root.pem").unlink()
    with pytest.raises(KeyMissingError) as caught:
        release(fleet, fleets.make_bundle(tmp_path / "bundle"), fleets.NOW)
    assert "fleet family add DIR har" in str(caught.value.hint)


def test_releasing_needs_no_root_and_no_rollouts_key_once_the_family_exists(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path, families=("har",))
    for name in ("root", "rollouts"):
        (fleet.keys.folder / f"{name}.pem").unlink()
    assert release(fleet, fleets.make_bundle(tmp_path / "bundle"), fleets.NOW).new
