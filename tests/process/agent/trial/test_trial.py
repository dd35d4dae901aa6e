"""The trial: each way a variant can fail is its own result and never the trial's end."""

import json
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from support.makers import bundles

from edge_agent.inference.samples import write_arrays
from edge_agent.ipc.trial import TrialPlan
from edge_agent.trial.__main__ import read_outcome, run_trial
from edge_contracts.errors import BundleError
from edge_contracts.manifest import Budgets, OutputFloor, SampleSet


def _plan(folder, **limits):
    return TrialPlan(folder=str(folder), **{"time_s": 30.0, **limits})


def _first(folder, **limits):
    return run_trial(_plan(folder, **limits)).variants[0]


def test_a_good_release_passes_with_every_number_measured(tmp_path):
    bundles.make_bundle(tmp_path / "b")
    report = run_trial(_plan(tmp_path / "b", latency_ms=500.0, memory_mb=200.0, load_s=10.0))
    assert report.usable == ("fp32", "small")
    first = report.variants[0]
    assert first.score == 1.0
    assert first.golden_error == pytest.approx(0.0, abs=1e-6)
    assert first.latency_ms > 0
    assert first.memory_mb > 0
    assert first.load_s > 0


def test_wrong_answers_on_the_probe_set_fail_by_quality(tmp_path):
    bundles.make_bundle(tmp_path / "b", models=[("fp32", bundles.wrong_model())])
    found = _first(tmp_path / "b")
    assert (found.reason, found.score) == ("quality", 0.0)
    assert "at least 0.9" in found.text


def test_other_numbers_than_where_it_was_made_fail_by_golden(tmp_path):
    made = bundles.make_bundle(tmp_path / "b")
    x, _ = bundles.samples(4)
    golden = {
        "input_0": x,
        "fp32/output_0": x @ bundles.WEIGHTS + 1,
        "small/output_0": x @ bundles.WEIGHTS / 2,
    }
    write_arrays(made.folder / "golden.npz", golden)
    bundles.seal(made.folder, bundles.fields_of(made))
    report = run_trial(_plan(made.folder))
    assert [found.reason for found in report.variants] == ["golden", "ok"]
    assert report.usable == ("small",)


def test_a_variant_that_does_not_load_leaves_the_others_their_chance(tmp_path):
    models = [("bad", bundles.crash_model()), ("good", bundles.linear_model())]
    bundles.make_bundle(tmp_path / "b", models=models)
    report = run_trial(_plan(tmp_path / "b"))
    assert [found.reason for found in report.variants] == ["load", "ok"]
    assert "bad.onnx" in report.variants[0].text


def _with_probe(tmp_path, model, largest):
    """A bundle whose probe set drives `model` to its largest number."""
    made = bundles.make_bundle(tmp_path / "b", models=[("fp32", model), ("good", bundles.linear_model())])
    x, y = bundles.samples(4)
    x[0, 0] = largest
    write_arrays(made.folder / "probe.npz", {"input_0": x, "y": y})
    fields = bundles.fields_of(made) | {"probe": SampleSet(file="probe.npz", samples=4)}
    return bundles.seal(made.folder, fields).folder


def test_an_exploding_variant_fails_by_memory_and_the_box_lives(tmp_path):
    folder = _with_probe(tmp_path, bundles.exploding_model(), 1e11)
    report = run_trial(_plan(folder, memory_mb=64.0))
    assert [found.reason for found in report.variants] == ["memory", "quality"]


def test_a_hanging_variant_fails_by_time(tmp_path):
    folder = _with_probe(tmp_path, bundles.looping_model(), 1e15)
    assert _first(folder, time_s=4.0).reason == "time"


def test_budgets_of_manifest_and_profile_both_bind(tmp_path):
    bundles.make_bundle(tmp_path / "slow", budgets=Budgets(latency_ms=1e-6))
    assert _first(tmp_path / "slow", latency_ms=500.0).reason == "latency"
    bundles.make_bundle(tmp_path / "b")
    assert _first(tmp_path / "b", latency_ms=1e-6).reason == "latency"
    assert _first(tmp_path / "b", load_s=1e-9).reason == "load"
    assert _first(tmp_path / "b", memory_mb=0.01).reason == "memory"


def test_an_engine_that_is_not_here_is_named(tmp_path):
    made = bundles.make_bundle(tmp_path / "b")
    child = (
        "import sys; sys.modules['onnxruntime'] = None; sys.argv = ['t', *sys.argv[1:]];"
        "from edge_agent.trial.variant import main; sys.exit(main(sys.argv[1:]))"
    )
    plan = json.dumps({"folder": str(made.folder)})
    done = subprocess.run([sys.executable, "-c", child, plan, "fp32"], capture_output=True, timeout=50)
    assert json.loads(done.stdout)["reason"] == "engine-missing"


def test_a_golden_set_without_this_variant_fails_by_load_naming_the_array(tmp_path):
    made = bundles.make_bundle(tmp_path / "b")
    write_arrays(made.folder / "golden.npz", {"input_0": np.zeros((1, 4), np.float32)})
    bundles.seal(made.folder, bundles.fields_of(made))
    found = _first(made.folder)
    assert (found.reason, "golden.npz: no array fp32/output_0" in found.text) == ("load", True)


def test_a_tampered_bundle_is_not_tried(tmp_path):
    made = bundles.make_bundle(tmp_path / "b")
    (made.folder / "probe.npz").write_bytes(b"")
    with pytest.raises(BundleError, match=r"probe\.npz"):
        run_trial(_plan(made.folder))


def test_the_command_prints_one_report_and_its_exit_code_says_pass(tmp_path):
    bundles.make_bundle(tmp_path / "good")
    bundles.make_bundle(tmp_path / "bad", models=[("fp32", bundles.wrong_model())])
    for name, code in (("good", 0), ("bad", 3)):
        command = [sys.executable, "-m", "edge_agent.trial", json.dumps({"folder": str(tmp_path / name)})]
        done = subprocess.run(command, capture_output=True, timeout=50)
        assert done.returncode == code
        assert len(json.loads(done.stdout)["variants"]) >= 1


def test_a_variant_that_takes_its_process_down_is_a_crash_and_says_how():
    done = subprocess.run(
        [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"], capture_output=True
    )
    found = read_outcome("fp32", done)
    assert (found.reason, found.text) == ("crash", "killed by SIGSEGV")


@pytest.mark.parametrize("said", [b'{"variant":"\xff"}', b'{"variant":"fp32","x":' + b"[" * 60_000])
def test_a_report_that_only_a_hostile_model_would_print_is_a_crash(said):
    done = subprocess.CompletedProcess([], 0, said + b"\n", b"")
    assert read_outcome("fp32", done).reason == "crash"


def _with_floor(tmp_path, allowed):
    """A bundle whose second variant answers half of what the original did."""
    made = bundles.make_bundle(tmp_path / "b")
    x, _ = bundles.samples(4)
    golden = {"input_0": x, "fp32/output_0": x @ bundles.WEIGHTS, "small/output_0": x @ bundles.WEIGHTS / 2}
    write_arrays(made.folder / "golden.npz", golden | {"_original/output_0": x @ bundles.WEIGHTS})
    fields = bundles.fields_of(made)
    floors = (OutputFloor(output="y", relative_error=allowed),)
    fields["variants"] = tuple(msgspec.structs.replace(one, floors=floors) for one in made.manifest.variants)
    bundles.seal(made.folder, fields)
    return run_trial(_plan(made.folder))


def test_a_variant_that_answers_as_where_it_was_made_still_has_to_be_near_the_original(tmp_path):
    assert _with_floor(tmp_path / "wide", 0.6).usable == ("fp32", "small")
    report = _with_floor(tmp_path / "narrow", 0.4)
    assert [found.reason for found in report.variants] == ["ok", "golden"]
    assert "y differs from the original" in report.variants[1].text


def test_a_floor_without_the_answers_of_the_original_is_refused(tmp_path):
    made = bundles.make_bundle(tmp_path / "b")
    fields = bundles.fields_of(made)
    floors = (OutputFloor(output="y", relative_error=0.5),)
    fields["variants"] = tuple(msgspec.structs.replace(one, floors=floors) for one in made.manifest.variants)
    bundles.seal(made.folder, fields)
    report = run_trial(_plan(made.folder))
    assert report.usable == ()
    assert "no answers of the original" in report.variants[0].text
