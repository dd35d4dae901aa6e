"""Streams: what a model that remembers is fed at each step, and when it starts anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from support.makers.bundles import make_bundle, samples
from support.makers.stream_bundles import GAIN, frames, make_stream_bundle, right_answers

from edge_agent import Runtime
from edge_agent.errors import EngineError, TensorError
from edge_agent.fallback_ladder import LadderRelease, build_ladder
from edge_agent.http.oip_codec import parse_request
from edge_agent.inference.rungs.rung import LoadedRung
from edge_agent.inference.streams import StreamLimits, StreamStates, StreamStep

STEPS = frames(6)
RIGHT = right_answers(STEPS)


def opened(tmp_path: Path, **limits: Any) -> Runtime:
    bundle = make_stream_bundle(tmp_path / "b")
    release = LadderRelease(
        role="local", folder=str(tmp_path / "b"), manifest_sha256=bundle.manifest_sha256, manifest=bundle.manifest
    )
    runtime = Runtime(build_ladder([release]), streams=StreamLimits(**limits))
    runtime.warm()
    return runtime


def ask(runtime: Runtime, stream: str | int, step: int, **values: Any) -> Any:
    return runtime.infer_step({"x": STEPS[step]}, StreamStep(stream=stream, **values))


def test_a_stream_object_feeds_the_state_back(tmp_path: Path) -> None:
    with opened(tmp_path) as runtime, runtime.stream() as stream:
        answers = [stream.infer({"x": step}) for step in STEPS]
    np.testing.assert_array_equal([answer.outputs["y"] for answer in answers], RIGHT)
    assert [answer.stream_start for answer in answers] == [True] + [False] * 5
    assert all(answer.warnings == () for answer in answers)


def test_streams_beside_each_other_do_not_touch(tmp_path: Path) -> None:
    other = frames(6, seed=9)
    with opened(tmp_path) as runtime, runtime.stream() as one, runtime.stream() as two:
        for index in range(6):
            np.testing.assert_array_equal(one.infer({"x": STEPS[index]}).outputs["y"], RIGHT[index])
            np.testing.assert_array_equal(two.infer({"x": other[index]}).outputs["y"], right_answers(other)[index])


def test_a_reset_forgets(tmp_path: Path) -> None:
    with opened(tmp_path) as runtime, runtime.stream() as stream:
        stream.infer({"x": STEPS[3]})
        stream.reset()
        again = stream.infer({"x": STEPS[0]})
    np.testing.assert_array_equal(again.outputs["y"], RIGHT[0])
    assert again.stream_start


def test_without_a_stream_each_request_is_a_first_step(tmp_path: Path) -> None:
    with opened(tmp_path) as runtime:
        for _ in range(2):
            np.testing.assert_array_equal(runtime.infer({"x": STEPS[0]}).outputs["y"], RIGHT[0])


def test_a_client_may_keep_the_state_itself(tmp_path: Path) -> None:
    with opened(tmp_path) as runtime:
        first = runtime.infer({"x": STEPS[0]})
        second = runtime.infer({"x": STEPS[1], "state": first.outputs["state_out"]})
    np.testing.assert_array_equal(second.outputs["y"], RIGHT[1])


def test_a_step_of_an_unknown_stream_starts_anew_and_says_so(tmp_path: Path) -> None:
    with opened(tmp_path) as runtime:
        answer = ask(runtime, 7, 0)
        assert runtime.tally.counters["streams_restarted"] == 1
        assert ask(runtime, 7, 1).warnings == ()
    assert answer.stream_start
    assert "stream 7: started anew" in answer.warnings[0]


def test_an_implied_stream_starts_without_being_told_to(tmp_path: Path) -> None:
    with opened(tmp_path) as runtime:
        answer = ask(runtime, "mic", 0, implied=True)
        assert runtime.tally.counters["streams_restarted"] == 0
    assert (answer.stream_start, answer.warnings) == (True, ())


def test_the_end_of_a_stream_forgets_it_after_its_answer(tmp_path: Path) -> None:
    with opened(tmp_path) as runtime:
        ask(runtime, 7, 0, start=True)
        np.testing.assert_array_equal(ask(runtime, 7, 1, end=True).outputs["y"], RIGHT[1])
        assert ask(runtime, 7, 0).stream_start


def test_a_name_and_a_number_are_two_streams(tmp_path: Path) -> None:
    with opened(tmp_path) as runtime:
        ask(runtime, 7, 0, start=True)
        assert ask(runtime, "7", 0).stream_start


def test_the_least_recent_of_too_many_streams_is_dropped_and_counted(tmp_path: Path) -> None:
    with opened(tmp_path, streams=2) as runtime:
        for stream in (1, 2):
            ask(runtime, stream, 0, start=True)
        ask(runtime, 1, 1)
        ask(runtime, 3, 0, start=True)
        assert runtime.tally.counters["streams_dropped"] == 1
        assert not ask(runtime, 1, 2).stream_start
        assert ask(runtime, 2, 1).stream_start


def test_states_of_too_many_bytes_are_dropped_but_for_the_one_in_use(tmp_path: Path) -> None:
    with opened(tmp_path, size=8) as runtime:
        ask(runtime, 1, 0, start=True)
        assert not ask(runtime, 1, 1).stream_start
        ask(runtime, 2, 0, start=True)
        assert ask(runtime, 1, 2).stream_start


def test_an_idle_stream_is_dropped() -> None:
    counted: list[str] = []
    states, arrays = _states(counted.append, idle_s=10.0)
    step = StreamStep(stream=1, start=True)
    states.fill_in(step, {}, "a", 0.0)
    states.keep(step, arrays, "a", 0.0)
    assert states.fill_in(StreamStep(stream=1), {}, "a", 9.9) is None
    assert states.fill_in(StreamStep(stream=1), {}, "a", 10.0) == "lost"
    assert counted == ["streams_dropped", "streams_restarted"]
    assert len(states) == 0


def test_the_state_of_another_release_is_not_gone_on_from() -> None:
    states, arrays = _states(lambda _: None)
    states.keep(StreamStep(stream=1), arrays, "a", 0.0)
    assert states.fill_in(StreamStep(stream=1), {}, "b", 1.0) == "lost"


def _states(count: Any, **limits: Any) -> tuple[StreamStates, dict[str, Any]]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        manifest = make_stream_bundle(Path(folder) / "b").manifest
    return StreamStates(manifest, count, StreamLimits(**limits)), {"state_out": np.ones((1, 2), np.float32)}


def test_a_refused_step_leaves_the_stream_where_it_was(tmp_path: Path) -> None:
    with opened(tmp_path) as runtime:
        ask(runtime, 7, 0, start=True)
        with pytest.raises(TensorError):
            runtime.infer_step({"x": STEPS[1].astype(np.int32)}, StreamStep(stream=7))
        np.testing.assert_array_equal(ask(runtime, 7, 1).outputs["y"], RIGHT[1])


def test_a_step_whose_answer_could_not_be_finished_leaves_the_stream_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as runtime:
        ask(runtime, 7, 0, start=True)
        with monkeypatch.context() as broken:

            def fail(*_: object) -> None:
                raise EngineError("no such step", subject="answer")

            broken.setattr(LoadedRung, "finish", fail)
            assert ask(runtime, 7, 1).abstained
        np.testing.assert_array_equal(ask(runtime, 7, 1).outputs["y"], RIGHT[1])


def test_a_state_beside_a_stream_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as runtime, pytest.raises(TensorError, match="kept for the stream"):
        runtime.infer_step({"x": STEPS[0], "state": np.zeros((1, 2), np.float32)}, StreamStep(stream=7))


def test_a_step_s_tensors_have_the_state_that_was_fed(tmp_path: Path) -> None:
    with opened(tmp_path) as runtime:
        ask(runtime, 7, 0, start=True)
        tensors = {"x": STEPS[1]}
        runtime.infer_step(tensors, StreamStep(stream=7))
        np.testing.assert_array_equal(tensors["state"], STEPS[0])
        np.testing.assert_array_equal(runtime.infer(tensors).outputs["y"], RIGHT[1])


def test_a_model_that_remembers_nothing_has_no_streams(tmp_path: Path) -> None:
    make_bundle(tmp_path / "b")
    with Runtime.open(tmp_path / "b") as runtime:
        assert not runtime.remembers
        with pytest.raises(TensorError, match="no streams"):
            runtime.stream()
        runtime.infer({"x": samples(1)[0]})


def _body(**parameters: Any) -> bytes:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]
    return msgspec.json.encode({"inputs": inputs, "parameters": parameters})


@pytest.fixture(name="manifest")
def _manifest(tmp_path: Path) -> Any:
    return make_stream_bundle(tmp_path / "b").manifest


def test_the_protocol_s_parameters_name_the_step(manifest: Any) -> None:
    request = parse_request(_body(sequence_id=2**63, sequence_start=True), None, manifest)
    assert request.step == StreamStep(stream=2**63, start=True)
    request = parse_request(_body(sequence_id="mic-1", sequence_end=True), None, manifest)
    assert request.step == StreamStep(stream="mic-1", end=True)


def test_what_is_fed_back_is_in_a_step_s_answer_only_if_asked_for(manifest: Any) -> None:
    assert list(parse_request(_body(sequence_id=1), None, manifest).outputs) == ["y"]
    assert list(parse_request(_body(), None, manifest).outputs) == ["y", "state_out"]
    body = msgspec.json.decode(_body(sequence_id=1)) | {"outputs": [{"name": "state_out"}]}
    assert list(parse_request(msgspec.json.encode(body), None, manifest).outputs) == ["state_out"]


@pytest.mark.parametrize("no_id", [0, ""])
def test_no_id_is_no_stream(manifest: Any, no_id: object) -> None:
    assert parse_request(_body(sequence_id=no_id), None, manifest).step is None


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"sequence_start": True}, "sequence_start"),
        ({"sequence_id": -1}, "sequence_id"),
        ({"sequence_id": 1.5}, "sequence_id"),
        ({"sequence_id": "x" * 129}, "sequence_id"),
        ({"sequence_id": 1, "sequence_start": "yes"}, "sequence_start"),
    ],
)
def test_a_wrong_parameter_is_named(manifest: Any, parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(TensorError, match=named):
        parse_request(_body(**parameters), None, manifest)


def test_a_constant_may_be_sent_but_not_changed(tmp_path: Path) -> None:
    with opened(tmp_path) as runtime:
        first = StreamStep(stream="s", start=True)
        answer = runtime.infer_step({"x": STEPS[0], "gain": np.array(GAIN, np.float32)}, first)
        np.testing.assert_array_equal(answer.outputs["y"], RIGHT[0])
        with pytest.raises(TensorError, match=r"is 2\.0, this release answers for 3.0") as refused:
            runtime.infer_step({"x": STEPS[1], "gain": np.array(2.0, np.float32)}, StreamStep(stream="s"))
        assert refused.value.subject == "gain"
