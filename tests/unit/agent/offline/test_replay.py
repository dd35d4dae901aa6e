"""From a device's captures to the record that changed: the whole way through processes and commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from click.testing import Result
from support.makers import bundles as bundle_maker
from support.parts import replay as parts
from support.parts.replay import RECORDS, report, run

from edge_agent.answer import Answer
from edge_agent.capture.record import captured_request, encode_captured
from edge_agent.capture.ring import CaptureRing
from edge_agent.capture.sealing import PUBLIC_NAME, load_sealer
from edge_contracts.errors import EdgewrightError
from edge_contracts.manifest import Input, Output, SampleMapping

place = parts.place


def replay(place: Path, *words: object, captures: str = "captures") -> Result:
    return run("replay", place / captures, "--key", place / "capture.key", *words, "--json")


def test_the_release_that_answered_answers_the_same_again(place: Path) -> None:
    result = replay(place, "--release", place / "old")
    found = report(result)
    assert result.exit_code == 0
    assert (found["records"], found["compared"], found["changed"]) == (RECORDS, RECORDS, 0)
    assert found["agreement"] == 1.0
    assert found["worst"] == []


def test_two_releases_of_the_same_classes_agree_and_differ_in_confidence(place: Path) -> None:
    result = replay(place, "--release", place / "old", "--release", place / "scaled")
    found = report(result)
    assert result.exit_code == 0
    assert found["confidence_shift"] < 0
    assert found["worst"][0]["before"] == found["worst"][0]["after"]


def test_the_class_that_changed_is_found_with_its_records(place: Path) -> None:
    result = replay(place, "--release", place / "old", "--release", place / "blind")
    found = report(result)
    assert result.exit_code == 1
    lost = found["classes"].pop("2")
    assert lost["records"] > 0
    assert lost["agreed"] == 0
    assert all(seen["agreed"] == seen["records"] for seen in found["classes"].values())
    assert found["changed"] == lost["records"] == sum(found["confusion"].values())
    x, _ = bundle_maker.samples(RECORDS)
    assert found["worst"]
    for worst in found["worst"]:
        assert worst["before"] == "2"
        assert int((x[worst["record"]] @ bundle_maker.WEIGHTS).argmax()) == 2
        assert worst["time"] == 1.7e9 + worst["record"]


def test_one_release_is_compared_with_what_was_answered(place: Path) -> None:
    result = replay(place, "--release", place / "wrong")
    found = report(result)
    assert result.exit_code == 1
    assert found["before"] == "what was answered"
    assert (found["changed"], found["agreement"]) == (RECORDS, 0.0)


def test_the_text_names_the_record_and_the_class(place: Path) -> None:
    words = ("--key", place / "capture.key", "--release", place / "old", "--release", place / "blind")
    result = run("replay", place / "captures", *words)
    assert "linear 1.3.0/fp32" in result.stdout
    assert "class     2: 0 of" in result.stdout
    assert "2023-11-14 22:13" in result.stdout


def test_limit_replays_the_first_records_only(place: Path) -> None:
    assert report(replay(place, "--release", place / "old", "--limit", 3))["records"] == 3


def test_another_variant_can_be_asked(place: Path) -> None:
    found = report(replay(place, "--release", place / "old", "--variant", "small"))
    assert found["after"].endswith("/small")
    refused = replay(place, "--release", place / "old", "--variant", "tiny")
    assert "has fp32, small" in str(refused.exception)


def test_releases_with_other_inputs_are_refused_by_field(place: Path) -> None:
    other = (Input(name="x", dtype="float32", shape=(1, 4), sample=SampleMapping(dtype="float32")),)
    bundle_maker.make_bundle(place / "fixed", inputs=other)
    refused = replay(place, "--release", place / "old", "--release", place / "fixed")
    assert isinstance(refused.exception, EdgewrightError)
    assert "manifest.inputs[0].shape" in str(refused.exception)


def test_captures_of_another_model_are_refused_by_tensor(place: Path) -> None:
    ring = CaptureRing(place / "others", load_sealer(place / PUBLIC_NAME), 8 * 1024 * 1024)
    answer = Answer(outputs={}, served_by="", version=None, model_sha256=None, abstained=True, warnings=(), timing_us=1)
    ring.write(encode_captured(captured_request({"image": np.zeros((1, 8, 8), np.uint8)}, answer, 0.0)))
    ring.close()
    refused = replay(place, "--release", place / "old", captures="others")
    assert isinstance(refused.exception, EdgewrightError)
    assert "image" in str(refused.exception)


def test_differences_of_values_count_from_the_tolerance_on(place: Path) -> None:
    values = (Output(name="y", dtype="float32", shape=(-1, 3), kind="values"),)
    for name, model in (("v1", bundle_maker.linear_model()), ("v2", bundle_maker.scaled_model(1.001))):
        bundle_maker.make_bundle(place / name, models=[("fp32", model)], outputs=values, metric=None, min_score=None)
    words = ("--release", place / "v1", "--release", place / "v2")
    strict, lax = replay(place, *words), replay(place, *words, "--tolerance", 0.1)
    assert (strict.exit_code, lax.exit_code) == (1, 0)
    assert 0 < report(strict)["difference_median"] < 0.01
    assert report(strict)["agreement"] is None


def test_a_release_is_found_in_a_state_folder_by_version_or_hash(place: Path, tmp_path: Path) -> None:
    sha256 = "ab" * 32
    (tmp_path / "releases").mkdir()
    (tmp_path / "releases" / sha256).symlink_to(place / "old")
    for name in ("1.0.0", "abab"):
        assert report(replay(place, "--state", tmp_path, "--release", name))["changed"] == 0
    refused = replay(place, "--state", tmp_path, "--release", "9.9.9")
    assert "no such release" in str(refused.exception)


def test_command_makes_keys_that_only_a_passphrase_opens(tmp_path: Path, place: Path) -> None:
    (tmp_path / "phrase").write_text("correct horse\n")
    made = run("capture-key", tmp_path / "keys", "--passphrase-file", tmp_path / "phrase", "--json")
    assert json.loads(made.stdout)["private"].endswith("capture.key")
    locked = run(
        "replay", place / "captures", "--key", tmp_path / "keys" / "capture.key", "--release", place / "old", "--json"
    )
    assert "passphrase" in str(locked.exception)
