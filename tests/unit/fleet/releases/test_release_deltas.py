"""Deltas at release time: against which releases, in which codec, signed by whom, and never in the way of a release."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.makers import fleets
from support.makers.deltas import applied
from support.makers.fleets import NOW, make_bundle

from edge_contracts.channel import family_target, manifest_target
from edge_contracts.delta import Deltas, deltas_target, parse_deltas
from edge_contracts.errors import ContractError
from edge_contracts.manifest import parse_manifest
from edge_fleet.cli.fleet import fleet as fleet_command
from edge_fleet.errors import FleetError, RepositoryError
from edge_fleet.objects import locate
from edge_fleet.releases.deltas.build import DeltaPlan
from edge_fleet.releases.release import Released, add_family, blob_path, release, releases_role, versions
from edge_fleet.signing.workspace import FleetWorkspace

SIZE = 100_000


def model(version: int) -> bytes:
    """Return bytes of which each version changes some more."""
    data = bytearray(np.random.default_rng(1).bytes(SIZE))
    for number in range(version):
        data[1000 * number] ^= 0xFF
    return bytes(data)


@pytest.fixture
def fleet(tmp_path: Path) -> FleetWorkspace:
    return fleets.make_fleet(tmp_path)


def released(fleet: FleetWorkspace, number: int, plan: DeltaPlan = DeltaPlan()) -> Released:  # noqa: B008
    folder = fleet.path.parent / f"bundle-{number}"
    if not folder.exists():
        make_bundle(folder, version=f"1.{number}.0", model=model(number))
    return release(fleet, folder, NOW, plan)


def listed(fleet: FleetWorkspace, number: int) -> Deltas | None:
    data = fleet.read(NOW).read_target(releases_role("har"), deltas_target("har", f"1.{number}.0"))
    return None if data is None else parse_deltas(data)


def files(fleet: FleetWorkspace, number: int) -> dict[str, str]:
    """Return the hashes of a bundle's files."""
    manifest = parse_manifest((fleet.path.parent / f"bundle-{number}/manifest.json").read_bytes())
    return {entry.path: entry.sha256 for entry in manifest.files}


def test_deltas_lead_from_the_last_three_releases_unless_told_otherwise(fleet: FleetWorkspace) -> None:
    for number in range(5):
        done = released(fleet, number)
    assert done.deltas == 3
    deltas = listed(fleet, 4)
    assert deltas is not None
    assert {delta.base for delta in deltas.deltas} == {files(fleet, number)["model.onnx"] for number in (1, 2, 3)}
    assert {delta.target for delta in deltas.deltas} == {files(fleet, 4)["model.onnx"]}
    assert done.delta_bytes == sum(delta.size for delta in deltas.deltas) < SIZE // 10


@pytest.mark.parametrize("codec", ["zstd", "zlib"])
def test_blob_of_a_delta_makes_the_file_from_its_base(fleet: FleetWorkspace, tmp_path: Path, codec: str) -> None:
    released(fleet, 0)
    released(fleet, 1, DeltaPlan(codec=codec))  # type: ignore[arg-type]
    deltas = listed(fleet, 1)
    assert deltas is not None
    (delta,) = deltas.deltas
    assert delta.codec == codec
    data = blob_path(fleet.repository, delta.sha256).read_bytes()
    assert applied(tmp_path, model(0), data, SIZE, codec) == model(1)


def test_no_deltas_when_none_are_asked_for(fleet: FleetWorkspace) -> None:
    released(fleet, 0)
    assert released(fleet, 1, DeltaPlan(releases=0)).deltas == 0
    assert listed(fleet, 1) is None


def test_deltas_may_be_added_to_a_release_later(fleet: FleetWorkspace) -> None:
    released(fleet, 0)
    released(fleet, 1, DeltaPlan(releases=0))
    again = released(fleet, 1)
    assert (again.new, again.deltas) == (False, 1)
    assert listed(fleet, 1) is not None
    before = (fleet.repository / "metadata/timestamp.json").read_bytes()
    released(fleet, 1)
    assert (fleet.repository / "metadata/timestamp.json").read_bytes() == before


def test_an_older_version_released_late_has_deltas_from_still_older_ones_only(fleet: FleetWorkspace) -> None:
    for number in (0, 3):
        released(fleet, number)
    released(fleet, 1)
    deltas = listed(fleet, 1)
    assert deltas is not None
    assert [delta.base for delta in deltas.deltas] == [files(fleet, 0)["model.onnx"]]


def test_a_model_with_nothing_in_common_has_no_delta(fleet: FleetWorkspace, tmp_path: Path) -> None:
    released(fleet, 0)
    other = make_bundle(tmp_path / "other", version="1.1.0", model=np.random.default_rng(2).bytes(SIZE))
    assert release(fleet, other, NOW).deltas == 0


def test_deltas_are_no_versions(fleet: FleetWorkspace) -> None:
    for number in range(2):
        released(fleet, number)
    assert versions(fleet.read(NOW), "har") == ["1.0.0", "1.1.0"]


def test_a_damaged_older_blob_is_named_before_anything_is_signed(fleet: FleetWorkspace) -> None:
    released(fleet, 0)
    place = blob_path(fleet.repository, files(fleet, 0)["model.onnx"])
    place.write_bytes(bytes(SIZE))
    with pytest.raises(RepositoryError, match=place.name):
        released(fleet, 1)
    assert versions(fleet.read(NOW), "har") == ["1.0.0"]


def test_a_family_older_than_deltas_is_released_without_and_may_be_let_sign_them(fleet: FleetWorkspace) -> None:
    released(fleet, 0)
    old = [manifest_target("har", "*"), family_target("har")]
    with fleet.change(NOW, ["targets"]) as repository:
        repository.set_paths(releases_role("har"), old)
    done = released(fleet, 1)
    assert (done.new, done.deltas) == (True, 0)
    assert done.hint is not None
    assert "family add" in done.hint
    add_family(fleet, "har", NOW + timedelta(seconds=1))
    assert released(fleet, 1).deltas == 1
    with pytest.raises(FleetError, match="this family exists"):
        add_family(fleet, "har", NOW)


def test_the_depot_knows_the_name_of_a_list_of_deltas() -> None:
    name = f"models/har/1.0.0/{'ab' * 32}.deltas.json"
    assert locate("target", name) == f"targets/{name}"


def test_the_command_says_how_many_deltas_it_made(fleet: FleetWorkspace) -> None:
    released(fleet, 0)
    bundle = make_bundle(fleet.path.parent / "next", version="1.1.0", model=model(1))
    words = ["release", str(fleet.path), str(bundle), "--deltas", "1", "--delta-codec", "zlib", "--json"]
    done = CliRunner().invoke(fleet_command, words, catch_exceptions=False)
    assert json.loads(done.stdout)["deltas"] == 1
    deltas = listed(fleet, 1)
    assert deltas is not None
    assert deltas.deltas[0].codec == "zlib"


def test_more_releases_than_are_kept_in_mind_are_refused(fleet: FleetWorkspace) -> None:
    words = ["release", str(fleet.path), str(make_bundle(fleet.path.parent / "b")), "--deltas", "-1"]
    done = CliRunner().invoke(fleet_command, words)
    assert isinstance(done.exception, ContractError)
