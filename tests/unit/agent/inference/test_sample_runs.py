"""Constants, states and models without an axis for batches, fed as a device feeds them; oracles are loops by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from edge_agent.errors import EngineError
from edge_agent.inference.quality_metrics import decibels, relative_error
from edge_agent.inference.sample_runs import SampleRuns, resting
from edge_agent.ports import Array, TensorInfo, Tensors
from edge_contracts.manifest import Input, SampleMapping

FLOAT = SampleMapping(dtype="float32")


class Adder:
    """An engine whose state is the sum of what it was fed, times a rate; it counts how often it is asked."""

    def __init__(self, rows: int = 1) -> None:
        self.rows, self.asked = rows, 0

    @property
    def inputs(self) -> Sequence[TensorInfo]:
        return ()

    @property
    def outputs(self) -> Sequence[TensorInfo]:
        return ()

    def run(self, feeds: Tensors, *, shrink: bool = False) -> dict[str, Array]:
        self.asked += 1
        total: Any = feeds["state"] + feeds["x"].sum() * feeds["rate"]
        return {"sum": total.reshape(1, 1), "next": total}

    def close(self) -> None:
        """There is nothing to let go of."""


def tensors(**changed: Input) -> list[Input]:
    made = {
        "x": Input(name="x", dtype="float32", shape=(-1, 2), sample=FLOAT),
        "rate": Input(name="rate", dtype="float32", shape=(), sample=FLOAT, constant=(2,)),
        "state": Input(name="state", dtype="float32", shape=(1, 1), sample=FLOAT, feedback="next"),
    }
    return [*(made | changed).values()]


def runs(x: Array, inputs: Sequence[Input] | None = None) -> SampleRuns:
    nothing = np.empty(0, np.float32)
    return SampleRuns(inputs or tensors(), ["x", "rate", "state"], [x, nothing, nothing])


def test_a_state_is_fed_back_step_by_step_and_starts_anew_with_each_sequence() -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    total, states = runs(x).answers(Adder(), ["sum", "next"], ["sum", "next"])
    expected = np.cumsum(2 * x.sum(axis=2), axis=1)
    assert total.shape == (2, 3, 1)
    np.testing.assert_array_equal(total[..., 0], expected)
    np.testing.assert_array_equal(states.reshape(2, 3), expected)


def test_a_state_is_found_by_the_name_the_manifest_knows_it_by_whatever_the_engine_calls_it() -> None:
    renamed = tensors(state=Input(name="state", dtype="float32", shape=(1, 1), sample=FLOAT, feedback="h"))
    total, _ = runs(np.ones((1, 4, 2), np.float32), renamed).answers(Adder(), ["sum", "next"], ["sum", "h"])
    assert total.ravel().tolist() == [4.0, 8.0, 12.0, 16.0]


def test_without_a_state_each_sample_is_asked_once() -> None:
    engine = Adder()
    inputs = tensors(state=Input(name="state", dtype="float32", shape=(1, 1), sample=FLOAT, constant=(1,)))
    total, _ = runs(np.ones((5, 2), np.float32), inputs).answers(engine, ["sum", "next"], ["sum", "next"])
    assert (total.ravel().tolist(), engine.asked) == ([5.0] * 5, 5)


def test_a_sample_is_fed_as_it_is_to_a_model_without_an_axis_for_batches() -> None:
    plain = Input(name="x", dtype="int64", shape=(-1,), sample=SampleMapping(dtype="int64"))
    made = SampleRuns([plain], ["x"], [np.arange(6).reshape(2, 3)])
    assert made.feeds(1)["x"].tolist() == [3, 4, 5]


def test_sequences_of_two_lengths_beside_a_state_are_refused() -> None:
    inputs = tensors(rate=Input(name="rate", dtype="float32", shape=(-1,), sample=FLOAT))
    samples = [np.ones((2, 3, 2), np.float32), np.ones((2, 4), np.float32), np.empty(0, np.float32)]
    with pytest.raises(EngineError, match=r"3, 4"):
        SampleRuns(inputs, ["x", "rate", "state"], samples)


def test_answers_of_two_shapes_are_refused_by_name() -> None:
    class Growing(Adder):
        def run(self, feeds: Mapping[str, Array], *, shrink: bool = False) -> dict[str, Array]:
            self.asked += 1
            return {"rows": np.zeros((1, self.asked), np.float32)}

    plain = Input(name="x", dtype="float32", shape=(-1, 2), sample=FLOAT)
    with pytest.raises(EngineError, match="output rows"):
        SampleRuns([plain], ["x"], [np.ones((2, 2), np.float32)]).answers(Growing(), ["rows"], ["rows"])


def test_a_state_at_rest_is_zeros_and_a_constant_is_as_declared() -> None:
    _, rate, state = tensors()
    assert resting(rate).tolist() == 2.0
    assert (resting(state).tolist(), resting(state).dtype) == ([[0.0]], np.float32)


def test_an_offset_is_no_signal() -> None:
    generator = np.random.default_rng(3)
    truth = (1000 + generator.normal(size=200)).astype(np.float32)
    ruined = np.full(200, 1000, np.float32)
    assert relative_error(ruined, truth) == pytest.approx(0.2, abs=0.01)
    assert decibels(relative_error(truth, truth)) == 200.0
    assert decibels(relative_error(truth[:5], truth)) == -np.inf


def test_what_is_no_real_number_differs_by_the_share_of_its_elements() -> None:
    assert relative_error(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 4])) == 0.25
    assert relative_error(np.array([np.nan]), np.array([1.0])) == np.inf
