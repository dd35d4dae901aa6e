"""Measuring in child processes: several models in turns, and what a bad one costs."""

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.makers import onnx_models

from edge_bench.measure import Runner, RunnerError, measure_interleaved
from edge_bench.protocol import RunnerPlan
from edge_contracts.manifest import SampleMapping


@pytest.fixture
def plan(tmp_path: Path) -> RunnerPlan:
    onnx.save(onnx_models.conv_classifier(), tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", onnx_models.samples(20, seed=5)[0])
    return RunnerPlan(
        model=str(tmp_path / "model.onnx"),
        format="onnx",
        samples=str(tmp_path / "x.npy"),
        mapping=SampleMapping(dtype="float32"),
    )


def test_two_models_are_measured_in_turns_and_a_broken_one_costs_nothing(plan: RunnerPlan, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    exact = RunnerPlan(model=plan.model, format="onnx", samples=plan.samples, mapping=plan.mapping, optimize=False)
    bad = RunnerPlan(model=str(broken), format="onnx", samples="")
    measured, failures = measure_interleaved({"a": plan, "b": exact, "bad": bad}, seconds=0.1, rounds=3)
    assert set(measured) == {"a", "b"}
    assert set(failures) == {"bad"}
    assert "broken.onnx" in str(failures["bad"])
    assert all(len(one.rounds) == 3 and one.latency.p50 > 0 for one in measured.values())
    assert measured["a"].loaded.peak_memory_mb > 0.5
    assert measured["a"].loaded.engine == "onnxruntime"


def test_after_the_deadline_only_what_is_needed_is_measured_and_in_one_turn(plan: RunnerPlan) -> None:
    plans = {"needed": plan, "other": plan}
    measured, failures = measure_interleaved(plans, seconds=0.01, deadline=time.monotonic(), needed=("needed",))
    assert list(measured) == ["needed"]
    assert len(measured["needed"].rounds) == 1
    assert "no time left" in str(failures["other"])


def test_answers_are_the_models_own(plan: RunnerPlan, tmp_path: Path) -> None:
    import onnxruntime

    with Runner(plan) as runner:
        runner.predict(Path(plan.samples), tmp_path / "out.npz", count=7)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        answers = arrays["output_0"]
    session = onnxruntime.InferenceSession(plan.model, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": np.load(plan.samples)[:7]})[0]
    np.testing.assert_allclose(answers, expected, atol=1e-4)


def test_a_model_without_samples_is_fed_random_inputs_of_its_shapes(plan: RunnerPlan) -> None:
    with Runner(RunnerPlan(model=plan.model, format="onnx", samples="")) as runner:
        assert runner.opened().inputs[0].shape == (-1, 3, 32)
        assert runner.measure(0.01).size >= 1


def test_a_model_over_the_memory_limit_is_an_error_and_not_a_crash_of_ours(plan: RunnerPlan, tmp_path: Path) -> None:
    size = 20_000_000
    weights = np.zeros((1, size), dtype=np.float32)
    nodes = [onnx.helper.make_node("Gemm", ["x", "w"], ["y"])]
    onnx.save(onnx_models.model(nodes, {"w": weights}, [1], [size], output="y"), tmp_path / "big.onnx")
    limited = RunnerPlan(model=str(tmp_path / "big.onnx"), format="onnx", samples="", memory_limit_mb=150.0)
    with pytest.raises(RunnerError), Runner(limited) as runner:
        runner.loaded()


def test_a_runner_that_is_killed_is_named_with_its_end(plan: RunnerPlan) -> None:
    with Runner(plan) as runner:
        runner.loaded()
        runner._process.kill()
        with pytest.raises(RunnerError, match=r"model\.onnx.*-9"):
            runner.measure(0.01)
