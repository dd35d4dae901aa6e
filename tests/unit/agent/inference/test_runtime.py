"""The guarded pipeline in process: fitting, guards, the ladder at work, last resorts, counters."""

import threading

import numpy as np
import pytest
from support.makers import bundles
from support.sites.worker_host import ladder_of

from edge_agent import Runtime
from edge_agent.errors import TensorError
from edge_contracts.errors import BundleError
from edge_contracts.guards import FeatureGuard
from edge_contracts.manifest import Confidence, Input, InputGuard, LastResort, Output, OutputGuard, SampleMapping

X, Y = bundles.samples(8)
POISON = np.float32([[150, 0, 0, 0]])


def _inputs(**guard):
    return (
        Input(
            name="x",
            dtype="float32",
            shape=(-1, 4),
            sample=SampleMapping(dtype="float32"),
            guard=InputGuard(**guard),
        ),
    )


def _outputs(**guard):
    return (Output(name="y", dtype="float32", shape=(-1, 3), kind="logits", guard=OutputGuard(**guard)),)


def test_one_call_on_a_bundle_folder_answers(tmp_path):
    made = bundles.make_bundle(tmp_path / "b")
    with Runtime.open(tmp_path / "b") as runtime:
        answer = runtime.infer({"x": X})
        assert (answer.outputs["y"].argmax(axis=1) == Y).all()
        assert answer.served_by == "local:1.0.0/fp32"
        assert answer.model_sha256 == made.manifest.file("models/fp32.onnx").sha256
        assert not answer.abstained
        assert answer.warnings == ()
        assert runtime.tally.counters["requests"] == 1
        assert sum(runtime.tally.latency_log2_us) == 1


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({}, "x: missing"),
        ({"z": X}, "z: not an input"),
        ({"x": X, "z": X}, "z: not an input"),
        ({"x": X.astype(np.float64)}, "x: dtype is float64, not float32"),
        ({"x": X[0]}, r"x: shape is \[4\]"),
        ({"x": X[:, :2]}, r"x: shape is \[8, 2\]"),
        ({"x": X[:0]}, "x: shape .* holds no element"),
        ({"x": X.tolist()}, "x: not a NumPy array"),
        ({"x": np.full((1, 4), np.nan, np.float32)}, "x: contains NaN"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_name(tmp_path, tensors, says):
    bundles.make_bundle(tmp_path / "b")
    with Runtime.open(tmp_path / "b") as runtime:
        with pytest.raises(TensorError, match=says):
            runtime.infer(tensors)
        assert runtime.tally.counters["rejected"] == 1


def test_samples_are_mapped_and_model_inputs_are_fed_as_they_are(tmp_path):
    mapped = Input(
        name="x", dtype="float32", shape=(-1, 4), sample=SampleMapping(dtype="uint8", offset=128.0, scale=1 / 128)
    )
    bundles.make_bundle(tmp_path / "b", inputs=(mapped,), golden=None)
    stored = np.uint8([[0, 128, 255, 64]])
    with Runtime.open(tmp_path / "b") as runtime:
        as_sample = runtime.infer({"x": stored}).outputs["y"]
        as_model = runtime.infer({"x": (stored.astype(np.float32) - 128) / 128}).outputs["y"]
    np.testing.assert_array_equal(as_sample, as_model)


@pytest.mark.parametrize(
    ("action", "served"),
    [("warn", "local:1.0.0/fp32"), ("clip", "local:1.0.0/fp32"), ("fallback", "last-resort/abstain")],
)
def test_an_input_out_of_range_is_treated_as_declared(tmp_path, action, served):
    bundles.make_bundle(tmp_path / "b", inputs=_inputs(minimum=-1.0, maximum=1.0, out_of_range=action))
    with Runtime.open(tmp_path / "b") as runtime:
        answer = runtime.infer({"x": POISON})
        assert answer.served_by == served
        assert answer.warnings == ("x: 150 is above the maximum 1",)
        if action == "clip":
            clipped = runtime.infer({"x": np.clip(POISON, -1, 1)})
            np.testing.assert_array_equal(answer.outputs["y"], clipped.outputs["y"])
        assert runtime.infer({"x": X}).warnings == ()


@pytest.mark.parametrize(
    ("action", "served"), [("warn", "local:1.0.0/fp32"), ("fallback", "last-resort/abstain"), ("reject", None)]
)
def test_an_unknown_category_is_treated_as_declared(tmp_path, action, served):
    mode = FeatureGuard(index=1, name="mode", categories=(0.0, 150.0), action=action)
    bundles.make_bundle(tmp_path / "b", inputs=_inputs(features=(mode,)))
    with Runtime.open(tmp_path / "b") as runtime:
        assert runtime.infer({"x": np.float32([[150, 150, 9, 0]])}).warnings == ()
        if served is None:
            with pytest.raises(TensorError, match="x: mode: 9 is not one of its categories"):
                runtime.infer({"x": np.float32([[150, 9, 9, 0]])})
            assert runtime.tally.counters["rejected"] == 1
            return
        answer = runtime.infer({"x": np.float32([[150, 9, 9, 0]])})
        assert answer.served_by == served
        assert answer.warnings == ("x: mode: 9 is not one of its categories",)
        assert runtime.tally.counters["guard_input"] == 1


def test_a_nan_answer_goes_down_the_ladder_and_one_bad_request_demotes_nobody(tmp_path):
    active = bundles.make_bundle(
        tmp_path / "new",
        version="2.0.0",
        models=[("fp32", bundles.nan_model())],
        inputs=_inputs(not_finite="warn"),
    )
    good = bundles.make_bundle(tmp_path / "old")
    faults = []
    runtime = Runtime(ladder_of(active, good), on_fault=lambda rung, reason, _: faults.append((rung.version, reason)))
    assert runtime.warm() == "active:2.0.0/fp32"
    answer = runtime.infer({"x": POISON})
    assert answer.served_by == "last-good:1.0.0/fp32"
    assert answer.version == "1.0.0"
    assert "y: answer contains NaN or infinity" in answer.warnings[0]
    assert faults == [("2.0.0", "guard")]
    assert runtime.infer({"x": X}).served_by == "active:2.0.0/fp32"
    assert runtime.tally.counters["fallbacks"] == runtime.tally.counters["guard_output"] == 1


def test_a_rung_that_keeps_failing_rests_and_comes_back(tmp_path):
    active = bundles.make_bundle(tmp_path / "new", version="2.0.0", models=[("fp32", bundles.nan_model())])
    runtime = Runtime(ladder_of(active, bundles.make_bundle(tmp_path / "old")))
    runtime.warm()
    for _ in range(3):
        runtime.infer({"x": POISON})
    errors = runtime.tally.counters["errors"]
    assert runtime.serving == runtime.infer({"x": X}).served_by == "last-good:1.0.0/fp32"
    assert runtime.tally.counters["errors"] == errors
    threading.Event().wait(1.1)
    assert runtime.infer({"x": X}).served_by == "active:2.0.0/fp32"


def test_a_request_no_rung_can_answer_puts_none_to_rest(tmp_path):
    made = bundles.make_bundle(tmp_path / "b", models=[("fp32", bundles.nan_model())])
    runtime = Runtime(ladder_of(made))
    for _ in range(10):
        assert runtime.infer({"x": POISON}).abstained
    assert runtime.infer({"x": X}).served_by == "active:1.0.0/fp32"


def test_an_answer_out_of_its_declared_range_is_no_answer(tmp_path):
    bundles.make_bundle(tmp_path / "b", outputs=_outputs(maximum=100.0))
    with Runtime.open(tmp_path / "b") as runtime:
        answer = runtime.infer({"x": POISON})
        assert answer.abstained
        assert [warning.split()[-1] for warning in answer.warnings] == ["100", "100"]


@pytest.mark.parametrize(
    ("resort", "outputs", "served"),
    [
        (LastResort(), None, "last-resort/abstain"),
        (LastResort(kind="constant", values=(1.0, 0.0, 0.0)), [[1, 0, 0]] * 2, "last-resort/constant"),
        (LastResort(kind="constant", values=(1.0, 0.0)), None, "last-resort/abstain"),
        (LastResort(kind="last_value"), "last", "last-resort/last_value"),
        (LastResort(kind="last_value", fresh_s=1e-9), None, "last-resort/abstain"),
    ],
)
def test_the_last_resort_answers_as_declared(tmp_path, resort, outputs, served):
    bundles.make_bundle(tmp_path / "b", models=[("fp32", bundles.nan_model())], last_resort=resort)
    with Runtime.open(tmp_path / "b") as runtime:
        good = runtime.infer({"x": X[:2]})
        answer = runtime.infer({"x": np.repeat(POISON, 2, axis=0)})
    assert answer.served_by == served
    assert answer.abstained == (outputs is None)
    assert answer.model_sha256 is None
    if outputs is not None:
        expected = good.outputs["y"] if outputs == "last" else np.float32(outputs)
        np.testing.assert_array_equal(answer.outputs["y"], expected)


def test_an_unusual_sample_is_flagged_and_answered(tmp_path):
    confidence = {"confidence": Confidence(max_softmax=0.99)}
    bundles.make_bundle(tmp_path / "b", variant=confidence)
    with Runtime.open(tmp_path / "b") as runtime:
        flat = runtime.infer({"x": np.zeros((1, 4), np.float32)})
        assert flat.warnings[0].startswith("out of distribution: max softmax 0.3333")
        assert flat.outputs["y"].shape == (1, 3)
        assert runtime.infer({"x": np.float32([[9, 0, 0, 0]])}).warnings == ()
        assert runtime.tally.counters["out_of_distribution"] == 1


def test_lower_rungs_are_loaded_when_needed_and_preference_unloads(tmp_path):
    bundles.make_bundle(tmp_path / "b")
    with Runtime.open(tmp_path / "b") as runtime:
        assert [rung.rung.variant for rung in runtime._ladder.loaded.values()] == ["fp32"]
        assert runtime.prefer("small", threads=2) == "local:1.0.0/small"
        assert [rung.rung.variant for rung in runtime._ladder.loaded.values()] == ["small"]
        small = runtime._ladder.loaded[1]
        assert runtime.prefer("small", threads=2) == "local:1.0.0/small"
        assert runtime._ladder.loaded[1] is small, "what serves already is not loaded again"
        assert runtime.infer({"x": X}).served_by == "local:1.0.0/small"
        assert runtime.prefer(None) == "local:1.0.0/fp32"


def test_a_model_file_changed_on_disk_after_installation_is_not_served(tmp_path):
    made = bundles.make_bundle(tmp_path / "b")
    path = made.folder / "models/fp32.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    runtime = Runtime(ladder_of(made))
    assert runtime.warm() == "active:1.0.0/small"


def test_a_release_with_other_inputs_is_skipped_not_fed(tmp_path):
    active = bundles.make_bundle(tmp_path / "new", version="2.0.0", models=[("fp32", bundles.nan_model())])
    other = bundles.make_bundle(
        tmp_path / "old",
        golden=None,
        inputs=(Input(name="x", dtype="float32", shape=(-1, 4), sample=SampleMapping(dtype="uint8")),),
    )
    runtime = Runtime(ladder_of(active, other))
    assert runtime.infer({"x": POISON}).served_by == "last-good:1.0.0/fp32"


def test_a_ladder_with_nothing_readable_says_so(tmp_path):
    with pytest.raises(BundleError, match="ladder"):
        Runtime(())
    with pytest.raises(BundleError):
        Runtime.open(tmp_path / "nowhere")


def test_callers_on_many_threads_are_served_one_at_a_time(tmp_path):
    bundles.make_bundle(tmp_path / "b")
    with Runtime.open(tmp_path / "b") as runtime:
        threads = [threading.Thread(target=lambda: [runtime.infer({"x": X}) for _ in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert runtime.tally.counters["requests"] == sum(runtime.tally.served_by.values()) == 200
