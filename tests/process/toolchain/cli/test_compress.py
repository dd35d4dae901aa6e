"""`edgewright compress` from task file to bundle, on a small fitted network."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from onnx import helper
from support.makers import onnx_models

from edge_agent.bundle import open_bundle
from edge_agent.inference.samples import read_arrays
from edge_compression.cli.compress import compress
from edge_contracts.errors import BundleError, ContractError, OperatorError

pytestmark = pytest.mark.timeout(600)  # whole searches, each with dozens of processes

ROOT = Path(__file__).resolve().parents[4]
PROFILE = """
name = "test"
engines = ["onnxruntime"]
[board]
description = "a test"
architecture = "x86_64"
cores = 1
memory_mb = 1000
source = "none"
[model]
prefer = "size"
reduce_range = false
"""
CRASHING = """
summary = "asks for attention, which the model has not"
[[passes]]
pass = "fuse_transformer"
[[passes]]
pass = "dynamic_int8"
"""
HOPELESS = """
summary = "asks for an operator the model has not"
[[passes]]
pass = "static_int8"
operators = ["LSTM"]
"""
IDLE = """
summary = "a pass that changes nothing"
rank = 60
[[passes]]
pass = "simplify"
[[passes]]
pass = "compact"
[[passes]]
pass = "dynamic_int8"
[[passes]]
pass = "compact"
[[passes]]
pass = "compact"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compress")
    onnx_models.write_task(folder)
    recipes = folder / "recipes"
    recipes.mkdir()
    for name in ("float", "int8-pc-bias-rr", "int8-dynamic"):
        shutil.copy(ROOT / "compression" / "recipes" / f"{name}.toml", recipes)
    (recipes / "crashing.toml").write_text(CRASHING)
    (recipes / "hopeless.toml").write_text(HOPELESS)
    (recipes / "idle.toml").write_text(IDLE)
    (folder / "profile.toml").write_text(PROFILE)
    return folder


def words(place: Path, out: str, *more: str) -> list[str]:
    given = [str(place / "waves.toml"), "--profile", str(place / "profile.toml"), "--out", str(place / out)]
    return [
        *given,
        "--recipes",
        str(place / "recipes"),
        "--max-drop",
        "1.5pt",
        "--budget",
        "10m",
        "--variations",
        "0",
        "--json",
        *more,
    ]


@pytest.fixture(scope="module")
def report(place: Path) -> dict[str, Any]:
    done = CliRunner().invoke(compress, words(place, "bundle", "--version", "2.1.0"), catch_exceptions=False)
    assert done.exit_code == 0
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_bundle_verifies_and_says_what_it_holds(place: Path, report: dict[str, Any]) -> None:
    bundle = open_bundle(place / "bundle", verify=True)
    manifest = bundle.manifest
    assert (manifest.name, manifest.version) == ("waves", "2.1.0")
    assert [one.id for one in manifest.variants] == report["ladder"]
    assert manifest.variants[-1].id == "float"
    assert manifest.inputs[0].shape == (-1, 3, 32)
    assert manifest.inputs[0].guard.maximum is not None
    assert manifest.outputs[0].kind == "logits"
    assert manifest.lineage.source_sha256
    assert manifest.lineage.data_sha256
    assert "Conv" in manifest.requirements.operators or "ConvInteger" in manifest.requirements.operators


def test_the_best_eight_bit_variant_is_on_the_ladder_and_smaller(place: Path, report: dict[str, Any]) -> None:
    assert report["eight_bit"]["good"]
    manifest = open_bundle(place / "bundle").manifest
    best = manifest.variant(report["eight_bit"]["best"])
    assert best.size < report["original_size"]
    assert best.drop is not None
    assert best.drop <= 1.5
    assert best.min_score is not None
    assert best.score is not None
    assert best.confidence.energy is not None


def test_golden_and_probe_sets_fit_the_variants(place: Path, report: dict[str, Any]) -> None:
    bundle = open_bundle(place / "bundle")
    golden = read_arrays(bundle.path("golden.npz"), what="golden")
    probe = read_arrays(bundle.path("probe.npz"), what="probe")
    assert golden["input_0"].shape == (16, 3, 32)
    for name in report["ladder"]:
        assert golden[f"{name}/output_0"].shape == (16, 4)
    assert probe["input_0"].shape[0] == probe["y"].shape[0] == 200


def test_a_recipe_that_fails_costs_one_candidate_and_its_reason_is_told(report: dict[str, Any]) -> None:
    by_id = {one["id"]: one for one in report["candidates"]}
    assert by_id["crashing"]["status"] == "failed"
    assert "self-attention" in by_id["crashing"]["reason"]


def test_a_recipe_that_can_win_nothing_is_not_built_and_the_facts_are_told(report: dict[str, Any]) -> None:
    by_id = {one["id"]: one for one in report["candidates"]}
    assert by_id["hopeless"]["status"] == "not tried"
    assert "cannot win here: at best" in by_id["hopeless"]["reason"]
    assert any("int8 compute can win at most" in note for note in report["notes"])


def test_a_pass_that_changes_nothing_is_noticed(report: dict[str, Any]) -> None:
    by_id = {one["id"]: one for one in report["candidates"]}
    assert by_id["idle"]["status"] == "duplicate"
    assert "int8-dynamic" in by_id["idle"]["reason"]
    assert by_id["idle"]["quality"]["drop"] == by_id["int8-dynamic"]["quality"]["drop"]


def test_every_rung_was_judged_against_exact_arithmetic(report: dict[str, Any]) -> None:
    kept = [one for one in report["candidates"] if one["status"] == "kept"]
    assert all(one["exactness"]["samples"] > 0 for one in kept)
    assert all(one["timing"]["latency"]["count"] > 0 for one in kept)


def test_a_folder_with_content_is_not_overwritten(place: Path, report: dict[str, Any]) -> None:
    with pytest.raises(OperatorError, match="not empty"):
        CliRunner().invoke(compress, words(place, "bundle"), catch_exceptions=False)
    assert open_bundle(place / "bundle").manifest.version == "2.1.0"


def test_a_budget_that_is_used_up_leaves_the_core_and_what_was_judged(place: Path) -> None:
    done = CliRunner().invoke(compress, words(place, "late", "--budget", "0.01s"), catch_exceptions=False)
    assert done.exit_code == 0
    by_id = {one["id"]: one for one in json.loads(done.stdout)["candidates"]}
    assert by_id["int8-pc-bias-rr"]["quality"] is not None
    assert by_id["int8-pc-bias-rr"]["timing"] is not None
    assert by_id["int8-dynamic"]["reason"] == "the time budget was used up"


def test_an_interrupted_search_still_gives_what_was_judged(place: Path) -> None:
    command = [sys.executable, "-m", "edgewright.cli", "compress", *words(place, "stopped", "--verbose")]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        said = iter(running.stderr.readline, "")
        # The float original is judged before anything else is built.
        assert any(line.startswith("building") and "float" not in line for line in said)
        os.killpg(running.pid, signal.SIGINT)
        rest = running.stderr.read()
        report = json.loads(running.stdout.read())
    assert running.returncode == (4 if report["ladder"] == ["float"] else 0), rest
    assert "stopping" in rest
    assert report["ladder"][-1] == "float"
    reasons = [one["reason"] or "" for one in report["candidates"]]
    # What was being built or judged is not to blame for its end: only the search was interrupted.
    assert "the search was stopped" in set(reasons)
    assert not [one for one in reasons if "KeyboardInterrupt" in one or "ended with" in one]
    assert open_bundle(place / "stopped").manifest.variants[-1].id == "float"


@pytest.mark.parametrize(
    ("option", "value"), [("--max-drop", "much"), ("--budget", "soon"), ("--max-drop", "-1"), ("--calib", "0")]
)
def test_a_wrong_option_is_named(place: Path, option: str, value: str) -> None:
    done = CliRunner().invoke(compress, words(place, "wrong", option, value))
    assert done.exit_code == 2
    assert option in done.output


def test_a_model_with_two_inputs_is_refused_by_their_names(place: Path, tmp_path: Path) -> None:
    shutil.copy(place / "waves.npz", tmp_path)
    shutil.copy(place / "waves.toml", tmp_path)
    made = onnx_models.model([helper.make_node("Add", ["x", "x"], ["y"])], {}, [3, 32], [3, 32], output="y")
    made.graph.input.append(helper.make_tensor_value_info("z", 1, ["N", 3, 32]))
    made.graph.node[0].input[1] = "z"
    (tmp_path / "waves.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(ContractError, match=r"2 inputs \(x, z\)"):
        CliRunner().invoke(compress, [str(tmp_path / "waves.toml"), *words(place, "two")[1:]], catch_exceptions=False)


def test_a_sample_that_does_not_fit_the_model_is_named_by_array(place: Path, tmp_path: Path) -> None:
    narrow = onnx_models.model([helper.make_node("Relu", ["x"], ["y"])], {}, [3, 31], [3, 31], output="y")
    task = onnx_models.write_task(tmp_path, made=narrow)
    with pytest.raises(ContractError, match=r"waves\.npz\[x\]"):
        CliRunner().invoke(compress, [str(task), *words(place, "narrow")[1:]], catch_exceptions=False)


def test_a_file_that_is_no_model_is_refused_by_name(place: Path, tmp_path: Path) -> None:
    task = onnx_models.write_task(tmp_path)
    (tmp_path / "waves.onnx").write_bytes(b"no model")
    with pytest.raises(BundleError, match=r"waves\.onnx"):
        CliRunner().invoke(compress, [str(task), *words(place, "none")[1:]], catch_exceptions=False)


def test_no_drop_allowed_still_gives_a_bundle_with_the_float_original(place: Path, tmp_path: Path) -> None:
    for name in ("float", "int8-dynamic"):
        shutil.copy(place / "recipes" / f"{name}.toml", tmp_path)
    given = words(place, "strict", "--max-drop", "0", "--eval", "100", "--recipes", str(tmp_path))
    done = CliRunner().invoke(compress, given, catch_exceptions=False)
    report = json.loads(done.stdout)
    assert report["ladder"][-1] == "float"
    assert done.exit_code == (4 if report["ladder"] == ["float"] else 0)
    kept = [one for one in report["candidates"] if one["status"] == "kept"]
    assert all(one["quality"]["drop"] <= 1e-9 for one in kept)


def test_a_limit_that_nothing_keeps_is_an_error_and_the_work_is_kept(place: Path) -> None:
    given = words(place, "tiny", "--max-size", "100", "--work", str(place / "kept"), "--variations", "0")
    with pytest.raises(BundleError, match=r"no variant is within the limits.*limit 100"):
        CliRunner().invoke(compress, given, catch_exceptions=False)
    assert not (place / "tiny").exists()
    done = CliRunner().invoke(
        compress, [*words(place, "fits", "--max-size", "4k", "--work", str(place / "kept"))], catch_exceptions=False
    )
    report = json.loads(done.stdout)
    assert "reusing" in done.stderr
    assert all(one["size"] <= 4000 for one in report["candidates"] if one["id"] in report["ladder"])
    assert (place / "fits.html").read_text().startswith("<!DOCTYPE html>")


def test_thresholds_and_histograms_go_into_the_manifest(place: Path, report: dict[str, Any]) -> None:
    manifest = open_bundle(place / "bundle").manifest
    assert manifest.reference is not None
    assert manifest.reference.samples == report["evaluation_samples"]
    for variant in manifest.variants:
        assert {one.score for one in variant.conformal} == {"lac", "raps"}
        assert all(one.samples + one.checked == manifest.reference.samples for one in variant.conformal)
        assert variant.reference is not None
        assert sum(variant.reference.classes) == manifest.reference.samples


def test_a_default_run_says_the_ladder_first_in_few_lines(place: Path) -> None:
    given = [one for one in words(place, "short", "--work", str(place / "short-work")) if one != "--json"]
    done = CliRunner().invoke(compress, given, catch_exceptions=False)
    assert done.exit_code == 0
    lines = done.output.splitlines()  # both streams, as a person sees them
    assert len(lines) <= 25
    said = done.stdout.splitlines()
    assert said[0].startswith("waves 1.0.0 for test: original")
    assert said[1].split()[:2] == ["rung", "variant"]
    assert said[2].split()[0] == "1"
    assert "--verbose lists them" in done.stdout
    assert "crashing" not in done.stdout
    again = CliRunner().invoke(compress, [*given, "--force", "--verbose"], catch_exceptions=False)
    assert "crashing" in again.stdout
    assert again.stdout.splitlines()[0].split(":")[0] == said[0].split(":")[0]


def test_where_nothing_was_gained_the_last_line_and_the_exit_code_say_so(place: Path, tmp_path: Path) -> None:
    shutil.copy(place / "recipes" / "float.toml", tmp_path)
    given = words(place, "nothing", "--recipes", str(tmp_path))
    done = CliRunner().invoke(compress, [one for one in given if one != "--json"], catch_exceptions=False)
    assert done.exit_code == 4
    assert done.stdout.splitlines()[-1].startswith("Nothing was gained")
    assert open_bundle(place / "nothing").manifest.variants[-1].id == "float"
    assert CliRunner().invoke(compress, [*given, "--force"], catch_exceptions=False).exit_code == 4
