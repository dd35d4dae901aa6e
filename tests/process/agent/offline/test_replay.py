"""From a device's captures to the record that changed: the whole way through processes and commands."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.makers import bundles as bundle_maker
from support.sites.agent_process import AgentProcess, eventually
from support.sites.update_site import UpdateSite

from edge_agent.answer import Answer
from edge_agent.capture.files import capture_files
from edge_agent.capture.record import captured_request, encode_captured
from edge_agent.capture.ring import CaptureRing
from edge_agent.capture.sealing import PUBLIC_NAME, load_sealer, make_keys
from edge_agent.cli.agent import agent as agent_command
from edge_agent.inference.runtime import Runtime
from edge_contracts.channel import Gates
from edge_contracts.errors import EdgewrightError
from edge_contracts.manifest import Input, Output, SampleMapping

RECORDS = 40


def run(*words: object) -> Result:
    return CliRunner().invoke(agent_command, [str(word) for word in words], catch_exceptions=True)


def report(result: Result) -> dict[str, Any]:
    assert result.exit_code in (0, 1), (result.output, result.exception)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with keys, bundles, and captures of what release 1.0.0 answered."""
    folder = tmp_path_factory.mktemp("replay")
    make_keys(folder, None)
    old = bundle_maker.make_bundle(folder / "old", version="1.0.0")
    bundle_maker.make_bundle(folder / "wrong", version="1.1.0", models=[("fp32", bundle_maker.wrong_model())])
    bundle_maker.make_bundle(folder / "scaled", version="1.2.0", models=[("fp32", bundle_maker.scaled_model(0.5))])
    one_class = bundle_maker.WEIGHTS.copy()
    one_class[:, 2] = one_class[:, 0]  # never answers class 2: 0 is as likely and comes first
    bundle_maker.make_bundle(folder / "blind", version="1.3.0", models=[("fp32", bundle_maker.linear_model(one_class))])
    ring = CaptureRing(folder / "captures", load_sealer(folder / PUBLIC_NAME), 8 * 1024 * 1024)
    x, _ = bundle_maker.samples(RECORDS)
    with Runtime.open(old.folder) as runtime:
        for index in range(RECORDS):
            tensors = {"x": x[index : index + 1]}
            ring.write(encode_captured(captured_request(tensors, runtime.infer(tensors), 1.7e9 + index)))
    ring.close()
    return folder


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


@pytest.fixture
def device(tmp_path: Path, place: Path) -> Iterator[AgentProcess]:
    """An agent that captures everything 1.0.0 answers."""
    site = UpdateSite(tmp_path)
    site.release("1.0.0")
    site.start("1.0.0", gates=Gates(soak_s=0.3))
    agent = AgentProcess(tmp_path, site)
    settings = f'[slots.capture]\nkey = "{place / PUBLIC_NAME}"\nshare = 1.0\nmax_mb = 1.0\n'
    agent.config.write_text(agent.config.read_text() + settings)
    agent.start()
    agent.bring()
    agent.wait_for("committed", "1.0.0")
    yield agent
    agent.stop()


def ask_until_captured(agent: AgentProcess, count: int) -> None:
    def probe() -> bool:
        agent.ask()
        return agent.slot().counters.get("captured", 0) >= count

    eventually(f"{count} requests are captured", probe, 100.0)


@pytest.mark.timeout(240)
def test_what_a_real_device_captured_is_replayed_and_survives_kills(
    device: AgentProcess, place: Path, tmp_path: Path
) -> None:
    ask_until_captured(device, 5)
    captures = device.state.root / "captures" / "main"
    killed = set(device.slot().workers)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    # The first worker may have captured more than it had reported: so the second one's are counted from its start.
    eventually("another worker serves", lambda: bool(set(device.slot().workers) - killed), 100.0)
    ask_until_captured(device, device.slot().counters.get("captured", 0) + 3)
    status = device.slot()
    assert status.captured is not None
    assert status.captured.allowed
    assert status.captured.megabytes > 0
    assert len(capture_files(captures)) == 2  # each worker has begun its own
    with contextlib.suppress(ProcessLookupError):
        device.kill()
    device.start()
    found = report(run("replay", captures, "--key", place / "capture.key", "--release", place / "old", "--json"))
    assert found["records"] >= 8
    assert (found["changed"], found["damaged"]) == (0, [])
    private = b"".join(path.read_bytes() for path in device.state.root.rglob("*") if path.is_file())
    assert b"PRIVATE KEY" not in private


@pytest.mark.timeout(240)
def test_a_key_that_is_none_is_told_and_costs_no_answer(tmp_path: Path, place: Path) -> None:
    bundle_maker.make_bundle(tmp_path / "factory", version="0.1.0")
    agent = AgentProcess(tmp_path, None, factory=tmp_path / "factory")
    wrong = tmp_path / "capture.pub"
    wrong.write_bytes((place / "capture.key").read_bytes())
    agent.config.write_text(f'{agent.config.read_text()}[slots.capture]\nkey = "{wrong}"\nshare = 1.0\n')
    with agent:
        assert agent.served_by() == "factory:0.1.0/fp32"
    assert "is a private key" in agent.log
