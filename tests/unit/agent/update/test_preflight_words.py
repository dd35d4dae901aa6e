"""What a refusal says to a person, and which facts it depends on."""

from __future__ import annotations

import pytest
from msgspec.structs import asdict, replace
from support.makers.contract_examples import MANIFEST

from edge_agent.config.profiles import load_profile
from edge_agent.update.preflight import DeviceFacts, fingerprint, preflight
from edge_contracts.manifest import EngineFloor, Manifest, Requirements

PROFILE = load_profile("x86-gateway")
FACTS = DeviceFacts(
    architecture="x86_64", engines={"onnxruntime": "1.31.1"}, available_memory_mb=4000.0, disk_free_mb=4000.0
)


def refusal(*engines: EngineFloor, facts: DeviceFacts = FACTS, **needs: object) -> str:
    found = preflight(_manifest(engines, **needs), facts, PROFILE, 0)
    assert found is not None
    return found.text


def _manifest(engines: tuple[EngineFloor, ...], **needs: object) -> Manifest:
    return replace(MANIFEST, requirements=Requirements(engines=engines, **needs))  # type: ignore[arg-type]


def test_missing_engine_names_the_extra_that_brings_it() -> None:
    text = refusal(EngineFloor(name="litert", minimum="2.0"))
    extra = "install the extra 'tflite' (from a checkout: pip install '.[tflite]')"
    assert text == f"needs litert 2.0 or newer, which is not installed: {extra}"


def test_engine_that_is_too_old_names_both_versions() -> None:
    text = refusal(EngineFloor(name="onnxruntime", minimum="1.40"))
    assert text == "needs onnxruntime 1.40 or newer, 1.31.1 is installed: pip install onnxruntime"


def test_engine_that_the_profile_forbids_names_the_profile() -> None:
    profile = replace(PROFILE, engines=("onnxruntime",))
    found = preflight(_manifest((EngineFloor(name="litert", minimum="2.0"),)), FACTS, profile, 0)
    assert found is not None
    assert found.text == "needs litert 2.0 or newer, which profile x86-gateway does not allow"


def test_other_architecture_is_said_in_words() -> None:
    assert refusal(architectures=("aarch64", "armv7l")) == "needs aarch64 or armv7l, this device is x86_64"


def test_no_refusal_shows_python() -> None:
    for text in (refusal(EngineFloor(name="litert", minimum="2.0")), refusal(architectures=("aarch64",))):
        assert not set("{}[]") & set(text.replace("[tflite]", ""))


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("engines", {"onnxruntime": "1.32.0"}),
        ("engines", {"onnxruntime": "1.31.1", "litert": "2.3.0"}),
        ("architecture", "aarch64"),
    ],
)
def test_facts_that_a_lasting_refusal_depends_on_have_another_name_when_they_change(change: str, value: object) -> None:
    other = DeviceFacts(**{**asdict(FACTS), change: value})
    assert fingerprint(other, PROFILE) != fingerprint(FACTS, PROFILE)


def test_profile_that_changed_is_another_fact_and_memory_that_comes_and_goes_is_none() -> None:
    larger = replace(PROFILE, model=replace(PROFILE.model, memory_mb=PROFILE.model.memory_mb * 2))
    assert fingerprint(FACTS, larger) != fingerprint(FACTS, PROFILE)
    busy = DeviceFacts(**{**asdict(FACTS), "available_memory_mb": 1.0, "disk_free_mb": 1.0})
    assert fingerprint(busy, PROFILE) == fingerprint(FACTS, PROFILE)
