"""Whether a device may install a release at all: each thing it can lack, at the edge of having it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from support.makers.contract_examples import EXAMPLES

from edge_agent.update.preflight import MIB, DeviceFacts, Shortfall, preflight
from edge_contracts.manifest import EngineFloor, Manifest, Requirements, Variant
from edge_contracts.profile import Board, DeviceProfile, ModelBudget

EXAMPLE: Manifest = EXAMPLES["manifest"]
SIZE_MB = EXAMPLE.total_bytes / MIB


def manifest(*floors: EngineFloor, formats: tuple[str, ...] = ("onnx",), **needs: Any) -> Manifest:
    variants = tuple(
        Variant(id=f"v{number}", file="m", format=kind, size=1)  # type: ignore[arg-type]
        for number, kind in enumerate(formats)
    )
    requirements = Requirements(engines=floors, **needs)
    return msgspec.structs.replace(EXAMPLE, requirements=requirements, variants=variants)


def facts(**changed: Any) -> DeviceFacts:
    usual: dict[str, Any] = {
        "architecture": "aarch64",
        "engines": {"onnxruntime": "1.31.1", "litert": "2.3.0"},
        "available_memory_mb": 100.0,
        "disk_free_mb": 1000.0,
    }
    return DeviceFacts(**(usual | changed))


def profile(*engines: str, memory_mb: float = 128.0, disk_mb: float = 64.0) -> DeviceProfile:
    board = Board(description="a board", architecture="aarch64", cores=4, memory_mb=512.0, source="nowhere")
    return DeviceProfile(
        name="a-board",
        board=board,
        engines=engines or ("onnxruntime", "litert"),  # type: ignore[arg-type]
        model=ModelBudget(memory_mb=memory_mb, disk_mb=disk_mb),
    )


def reason(shortfall: Shortfall | None) -> str | None:
    return None if shortfall is None else shortfall.reason


def floor(name: str, minimum: str) -> EngineFloor:
    return EngineFloor(name=name, minimum=minimum)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("here", "minimum", "fits"),
    [
        ("1.31.1", "1.31.1", True),
        ("1.31.1", "1.31.2", False),
        ("1.31.1", "1.31.0", True),
        ("1.9.0", "1.17.0", False),  # numbers, not text
        ("2.0.0", "1.99.99", True),
        ("1.31", "1.31.0", False),  # fewer numbers are less
        ("1.31.1.post9", "1.31.1", True),
        ("1.31.1.7", "1.31.1.9", True),  # three numbers count
    ],
)
def test_an_engine_older_than_the_release_needs_refuses_it(here: str, minimum: str, fits: bool) -> None:
    found = preflight(manifest(floor("onnxruntime", minimum)), facts(engines={"onnxruntime": here}), profile(), 0)
    assert reason(found) == (None if fits else "engine")
    if found is not None:
        assert minimum in found.text
        assert here in found.text


def test_an_engine_that_is_not_here_or_not_allowed_refuses_the_release() -> None:
    needing = manifest(floor("litert", "2.0.0"))
    assert reason(preflight(needing, facts(), profile(), 0)) is None
    assert reason(preflight(needing, facts(engines={"onnxruntime": "1.31.1"}), profile(), 0)) == "engine"
    assert reason(preflight(needing, facts(), profile("onnxruntime"), 0)) == "engine"


def test_one_engine_of_those_named_is_enough() -> None:
    needing = manifest(floor("litert", "9.0.0"), floor("onnxruntime", "1.20.0"))
    assert reason(preflight(needing, facts(), profile(), 0)) is None


@pytest.mark.parametrize(("kind", "engine"), [("onnx", "onnxruntime"), ("tflite", "litert")])
def test_a_release_that_names_no_engine_needs_one_of_its_variants(kind: str, engine: str) -> None:
    assert reason(preflight(manifest(formats=(kind,)), facts(engines={engine: "0.1"}), profile(), 0)) is None
    others = {"onnxruntime": "9", "litert": "9"}
    del others[engine]
    assert reason(preflight(manifest(formats=(kind,)), facts(engines=others), profile(), 0)) == "engine"


def test_named_engines_count_more_than_the_variants_formats() -> None:
    needing = manifest(floor("litert", "2.0.0"), formats=("onnx",))
    assert reason(preflight(needing, facts(engines={"onnxruntime": "9.0.0"}), profile(), 0)) == "engine"


def test_a_pipeline_that_names_no_engine_is_left_to_its_trial() -> None:
    assert preflight(manifest(formats=("pipeline",)), facts(engines={}), profile(), 0) is None


def test_another_architecture_is_refused_first_and_none_named_is_any() -> None:
    found = preflight(manifest(architectures=("x86_64", "armv7l")), facts(engines={}), profile(), 0)
    assert reason(found) == "architecture"
    assert found is not None
    assert found.text == "needs x86_64 or armv7l, this device is aarch64"
    assert preflight(manifest(architectures=("x86_64", "aarch64")), facts(), profile(), 0) is None
    assert preflight(manifest(), facts(architecture="riscv64"), profile(), 0) is None


@pytest.mark.parametrize(
    ("needs", "budget", "available", "expected"),
    [
        (64.0, 64.0, 64.0, None),
        (64.1, 64.0, 100.0, "memory-budget"),
        (64.1, 100.0, 64.0, "memory"),
        (64.1, 64.0, 64.0, "memory-budget"),  # what the profile forbids is said before what is short now
    ],
)
def test_memory_is_held_against_the_profile_and_against_what_is_left(
    needs: float, budget: float, available: float, expected: str | None
) -> None:
    found = preflight(manifest(memory_mb=needs), facts(available_memory_mb=available), profile(memory_mb=budget), 0)
    assert reason(found) == expected
    if found is not None:
        assert found.text.startswith("needs 64.1 MB")
        assert found.text.endswith("64.0 MB")


def test_a_release_larger_than_the_profile_gives_is_refused_however_much_is_fetched() -> None:
    exact, less = profile(disk_mb=SIZE_MB), profile(disk_mb=SIZE_MB * 0.999)
    assert preflight(manifest(), facts(), exact, 0) is None
    assert reason(preflight(manifest(), facts(), less, EXAMPLE.total_bytes)) == "disk-budget"


def test_the_disk_must_hold_what_is_still_to_fetch_and_the_reserve_of_16_megabytes() -> None:
    enough = SIZE_MB + 16.0
    assert preflight(manifest(), facts(disk_free_mb=enough), profile(), 0) is None
    assert reason(preflight(manifest(), facts(disk_free_mb=enough - 0.001), profile(), 0)) == "disk"
    fetched = EXAMPLE.total_bytes // 2
    left = (EXAMPLE.total_bytes - fetched) / MIB + 16.0
    assert preflight(manifest(), facts(disk_free_mb=left), profile(), fetched) is None
    assert reason(preflight(manifest(), facts(disk_free_mb=left - 0.001), profile(), fetched)) == "disk"
