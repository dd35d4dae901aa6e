"""What a release consists of, and which devices run a component."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.makers import bundles

from edge_contracts.manifest import EngineFloor, Manifest, Requirements
from edge_contracts.state import Installed, ReportedState, SlotState
from edge_fleet.releases.bill_of_materials import bill_of_materials, exposed
from edge_fleet.releases.release import manifests, release
from edge_fleet.signing.workspace import FleetWorkspace, NewFleet, found

NOW = datetime(2026, 12, 1, tzinfo=UTC)
A, B = "a" * 64, "b" * 64


@pytest.fixture(name="manifest")
def _manifest(tmp_path: Path) -> Manifest:
    bundle = bundles.make_bundle(tmp_path / "bundle", license="Apache-2.0")
    lineage = replace(bundle.manifest.lineage, tools={"onnx": "1.17.0", "onnxslim": "0.1.40"})
    floor = Requirements(engines=(EngineFloor(name="onnxruntime", minimum="1.17.0"),))
    return replace(bundle.manifest, lineage=lineage, requirements=floor)


def report(device: str, serving: str | None = A, last_good: str | None = None, engine: str = "1.17.3") -> ReportedState:
    held = [None if sha is None else Installed(version="1.0.0", manifest_sha256=sha) for sha in (serving, last_good)]
    return ReportedState(
        device=device, boot_id="b", sequence=1, time="2026-12-01T00:00:00Z", agent_version="0.1.0", board="pi-4",
        architecture="aarch64", facts={"engine.onnxruntime": engine},
        slots=(SlotState(slot="main", serving=held[0], last_good=held[1]),),
    )  # fmt: skip


def who(package: str, manifest: Manifest, *reports: ReportedState) -> list[tuple[str, str, bool]]:
    found = exposed(package, [(one, True) for one in reports], {A: manifest, B: replace(manifest, version="1.1.0")})
    return [(one.device, one.role, one.kept) for one in found]


def test_the_bill_names_model_files_engine_and_tools_as_the_specification_asks(manifest: Manifest) -> None:
    bill = bill_of_materials(manifest, A)
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    model = bill["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "linear", "1.0.0")
    assert model["hashes"] == [{"alg": "SHA-256", "content": A}]
    assert {one["name"] for one in bill["metadata"]["tools"]["components"]} == {"onnx", "onnxslim"}
    named: dict[str, Any] = {one["name"]: one for one in bill["components"]}
    assert named["onnxruntime"]["properties"] == [{"name": "edgewright:minimum-version", "value": "1.17.0"}]
    assert {entry.path for entry in manifest.files} <= named.keys()


def test_every_reference_of_the_bill_is_there_once(manifest: Manifest) -> None:
    bill = bill_of_materials(manifest, A)
    references = [one["bom-ref"] for one in bill["components"]]
    assert len(references) == len(set(references))
    assert set(bill["dependencies"][0]["dependsOn"]) == set(references)
    assert bill["dependencies"][0]["ref"] == bill["metadata"]["component"]["bom-ref"]


def test_the_bill_is_valid_by_the_schema_of_its_specification(manifest: Manifest) -> None:
    schema = pytest.importorskip("cyclonedx.schema")
    validation = pytest.importorskip("cyclonedx.validation.json")
    checker = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    try:
        wrong = checker.validate_str(json.dumps(bill_of_materials(manifest, A)))
    except Exception as error:  # its own extras are not installed
        pytest.skip(str(error))
    assert wrong is None, wrong


def test_a_model_is_found_where_it_serves_and_where_it_can_be_returned_to(manifest: Manifest) -> None:
    found = who("linear@1.0.0", manifest, report("one"), report("two", B, A), report("three", B))
    assert found == [("one", "model", False), ("two", "model", True)]


def test_a_tool_is_found_through_the_release_it_made(manifest: Manifest) -> None:
    assert who("ONNX_slim@0.1", manifest, report("one")) == []
    assert who("onnxslim@0.1", manifest, report("one"), report("two", None)) == [("one", "tool", False)]


@pytest.mark.parametrize(("package", "devices"), [
    ("onnxruntime", ["one", "two"]), ("onnxruntime@1.17", ["one"]), ("onnxruntime@1.17.3", ["one"]),
    ("onnxruntime@1.1", []), ("onnxruntime@1.20.1", ["two"]), ("edgewright@0.1.0", ["one", "two"]), ("nothing", []),
])  # fmt: skip
def test_an_engine_is_found_by_what_the_device_reports(manifest: Manifest, package: str, devices: list[str]) -> None:
    found = who(package, manifest, report("one"), report("two", engine="1.20.1"))
    assert [device for device, _, _ in found] == devices


def test_a_release_writes_its_bill_and_the_same_again(tmp_path: Path) -> None:
    found(tmp_path / "fleet", NewFleet(families=("linear",)), NOW)
    fleet = FleetWorkspace(tmp_path / "fleet")
    bundles.make_bundle(tmp_path / "bundle")
    release(fleet, tmp_path / "bundle", NOW)
    file = tmp_path / "fleet" / "sboms" / "linear-1.0.0.cdx.json"
    first = file.read_bytes()
    ((sha256, manifest),) = manifests(fleet.read(NOW)).items()
    assert json.loads(first) == json.loads(json.dumps(bill_of_materials(manifest, sha256)))
    release(fleet, tmp_path / "bundle", NOW)
    assert file.read_bytes() == first
