"""The express lane answers what the long way would have answered, and leaves it everything else."""

import math
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper
from support.makers import bundles

from edge_agent import Runtime
from edge_agent.engines.onnx_runtime import OnnxBound
from edge_agent.errors import EngineError, TensorError
from edge_agent.inference.rungs import fast_path
from edge_agent.inference.rungs.quick_confidence import MAX_CLASSES, quick_confidence
from edge_contracts.guards import FeatureGuard
from edge_contracts.manifest import Confidence, Input, InputGuard, Output, OutputGuard, SampleMapping

NUMBERS = st.floats(width=32, allow_nan=True, allow_infinity=True) | st.sampled_from([0.5, -2.0, 2.0, 1e30, 150.0])
SHAPES = st.sampled_from([(1, 4), (1, 4), (1, 4), (2, 4), (1, 3), (4,), (0, 4)])
REQUESTS = st.one_of(
    SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=NUMBERS)),
    arrays(np.float64, (1, 4), elements=st.floats(-1, 1)),
    arrays(np.int8, (1, 4)),
).map(lambda array: {"x": array})
GUARDS = ["reject", "warn", "clip", "fallback"]


def _bundle(folder, thresholds=None, **guard):
    mapping = SampleMapping(dtype="float32")
    inputs = (Input(name="x", dtype="float32", shape=(-1, 4), sample=mapping, guard=InputGuard(**guard)),)
    outputs = (
        Output(name="y", dtype="float32", shape=(-1, 3), kind="logits", guard=OutputGuard(minimum=-9.0, maximum=9.0)),
    )
    models = [("fp32", bundles.nan_model()), ("small", bundles.scaled_model(0.5))]
    variant = {"confidence": thresholds or Confidence()}
    bundles.make_bundle(folder, models=models, inputs=inputs, outputs=outputs, variant=variant)
    return folder


def _features(action):
    """A range and categories; of the latter none is the nearest."""
    known = FeatureGuard(index=2, categories=(0.0, 0.5, -2.0, 0.25), action="warn" if action == "clip" else action)
    return {"not_finite": action, "features": (FeatureGuard(index=0, maximum=1.0, action=action), known)}


JUDGED = {"thresholds": Confidence(energy=-1.5, max_softmax=0.5)}
WHOLE = [{"minimum": -1.0, "maximum": 1.0, "out_of_range": action} for action in GUARDS]


@pytest.fixture(
    scope="module",
    params=[{}, JUDGED, *WHOLE, *map(_features, GUARDS)],
)
def folder(request, tmp_path_factory):
    return _bundle(tmp_path_factory.mktemp("express") / "b", **request.param)


def _outcome(runtime, request):
    try:
        answer = runtime.infer(request)
    except TensorError as error:
        return str(error), runtime.tally.counters
    outputs = {name: array.tolist() for name, array in answer.outputs.items()}
    return outputs, answer.served_by, answer.model_sha256, answer.abstained, answer.warnings, runtime.tally.counters


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(REQUESTS)
def test_with_and_without_it_every_request_ends_the_same(folder, request):
    with Runtime.open(folder) as quick, Runtime.open(folder) as slow:
        slow._ladder.loaded[0].express = None
        assert _outcome(quick, request) == _outcome(slow, request)


def test_a_usual_request_takes_it_and_an_unusual_one_does_not(tmp_path):
    with Runtime.open(_bundle(tmp_path / "b")) as runtime:
        lane = runtime._ladder.loaded[0].express
        usual = np.full((1, 4), 0.25, np.float32)
        assert lane.outputs({"x": usual}).keys() == {"y"}
        for array in (np.repeat(usual, 2, axis=0), usual * np.float32(np.nan), usual.astype(np.float64), usual * 1000):
            assert lane.outputs({"x": array}) is None
        assert lane.outputs({"x": usual, "z": usual}) is None


def test_a_guarded_feature_keeps_only_unusual_requests_out_of_it(tmp_path):
    with Runtime.open(_bundle(tmp_path / "b", **_features("reject"))) as runtime:
        lane = runtime._ladder.loaded[0].express
        assert lane.outputs({"x": np.float32([[1.0, 0.7, 0.25, 0.7]])}) is not None
        for row in ([1.5, 0.7, 0.25, 0.7], [1.0, 0.7, 0.3, 0.7]):
            assert lane.outputs({"x": np.float32([row])}) is None


MAPPED = [
    SampleMapping(dtype="int8", offset=-3.0, scale=1 / 127),
    SampleMapping(dtype="int8", scale=0.3),
    SampleMapping(dtype="uint8"),
    SampleMapping(dtype="float32", offset=0.1, scale=1 / 3),
    SampleMapping(dtype="float64"),
    SampleMapping(dtype="float64", offset=0.1, scale=1 / 3),
    SampleMapping(dtype="int64", scale=1e-3),
    SampleMapping(dtype="float16", offset=0.5, scale=2.0),
    SampleMapping(dtype="bool"),
]


@pytest.mark.parametrize("mapping", MAPPED, ids=lambda mapping: f"{mapping.dtype} {mapping.offset:g} {mapping.scale:g}")
def test_a_sample_is_mapped_in_it_as_it_is_beside_it(tmp_path, mapping):
    inputs = (Input(name="x", dtype="float32", shape=(-1, 4), sample=mapping),)
    bundles.make_bundle(tmp_path / "b", inputs=inputs, golden=None)
    draw = np.random.default_rng(3)
    kinds = {mapping.dtype, "float32"}
    with Runtime.open(tmp_path / "b") as quick, Runtime.open(tmp_path / "b") as slow:
        slow._ladder.loaded[0].express = None
        for kind in sorted(kinds):
            for _ in range(20):
                array = draw.uniform(0 if kind == "uint8" else -100, 100, (1, 4)).astype(kind)
                assert _outcome(quick, {"x": array}) == _outcome(slow, {"x": array})
        taken = quick._ladder.loaded[0].express.outputs({"x": np.ones((1, 4), mapping.dtype)})
        calculates_wider = mapping.dtype in ("float64", "int64") and mapping.scale != 1.0
        assert (taken is None) == calculates_wider


def test_another_value_for_a_constant_is_refused_with_it_as_without(tmp_path):
    nodes = [helper.make_node("Mul", ["x", "rate"], ["m"]), helper.make_node("MatMul", ["m", "w"], ["y"])]
    model = onnx.load_from_string(bundles._model(nodes, w=bundles.WEIGHTS))
    model.graph.input.append(helper.make_tensor_value_info("rate", TensorProto.FLOAT, [1]))
    mapping = SampleMapping(dtype="float32")
    inputs = (
        Input(name="x", dtype="float32", shape=(-1, 4), sample=mapping),
        Input(name="rate", dtype="float32", shape=(1,), sample=mapping, constant=(1.0,)),
    )
    bundles.make_bundle(tmp_path / "b", models=[("fp32", model.SerializeToString())], inputs=inputs, golden=None)
    x, rate = np.float32([[0.1, -0.2, 0.3, 0.4]]), np.ones(1, np.float32)
    with Runtime.open(tmp_path / "b") as runtime:
        right = runtime.infer({"x": x}).outputs["y"]
        assert (runtime.infer({"x": x, "rate": rate}).outputs["y"] == right).all()
        with pytest.raises(TensorError, match="answers for"):
            runtime.infer({"x": x, "rate": rate * 2})


def test_an_answer_that_was_given_does_not_change_with_the_next(tmp_path):
    with Runtime.open(_bundle(tmp_path / "b")) as runtime:
        rows = [np.full((1, 4), value, np.float32) for value in (0.25, 0.5, -0.75)]
        answers = [runtime.infer({"x": row}).outputs["y"] for row in rows]
        for row, answer in zip(rows, answers, strict=True):
            np.testing.assert_array_equal(answer, runtime._ladder.loaded[0].run([row])["y"])


def test_arrays_laid_out_otherwise_are_answered_alike(tmp_path):
    with Runtime.open(_bundle(tmp_path / "b")) as runtime:
        usual = np.float32([[0.1, -0.2, 0.3, 0.4]])
        backwards = np.ascontiguousarray(usual[:, ::-1])[:, ::-1]
        unaligned = np.frombuffer(b"x" + usual.tobytes(), np.float32, 4, 1).reshape(1, 4)
        right = runtime.infer({"x": usual}).outputs["y"]
        for array in (backwards, unaligned, np.repeat(usual, 2, axis=0)[::2]):
            assert (runtime.infer({"x": array}).outputs["y"] == right).all()


def test_an_engine_that_fails_closes_it_and_the_long_way_answers(tmp_path):
    with Runtime.open(_bundle(tmp_path / "b")) as runtime:
        lane, usual = runtime._ladder.loaded[0].express, np.zeros((1, 4), np.float32)

        def failing():
            raise EngineError("an answer of another shape")

        lane._run = failing
        assert lane.outputs({"x": usual}) is None
        assert lane._run is None
        assert runtime.infer({"x": usual}).served_by.endswith("/fp32")


def test_a_model_whose_answers_differ_from_run_to_run_has_none(tmp_path):
    noise = helper.make_node("RandomNormalLike", ["x"], ["noise"])
    nodes = [noise, helper.make_node("Add", ["x", "noise"], ["sum"]), helper.make_node("MatMul", ["sum", "w"], ["y"])]
    bundles.make_bundle(tmp_path / "b", models=[("fp32", bundles._model(nodes, w=bundles.WEIGHTS))])
    with Runtime.open(tmp_path / "b") as runtime:
        assert runtime._ladder.loaded[0].express is None
        assert runtime.infer({"x": np.zeros((1, 4), np.float32)}).served_by.endswith("/fp32")


def test_an_engine_without_the_inner_object_is_bound_all_the_same(tmp_path):
    with Runtime.open(_bundle(tmp_path / "b")) as runtime:
        public = SimpleNamespace(
            io_binding=(real := runtime._ladder.loaded[0].session._session).io_binding,
            run_with_iobinding=real.run_with_iobinding,
        )
        x = np.float32([[0.1, -0.2, 0.3, 0.4]])
        bound = OnnxBound(public, {"x": x}, {"y": np.zeros((1, 3), np.float32)})
        bound.run()
        assert (bound.outputs[0] == runtime.infer({"x": x}).outputs["y"]).all()


@pytest.mark.parametrize("kind", ["logits", "probabilities", "values"])
def test_a_release_that_judges_each_answer_has_one_for_those_within_its_thresholds(tmp_path, kind):
    outputs = (Output(name="y", dtype="float32", shape=(-1, 3), kind=kind),)
    thresholds = Confidence(energy=-1.5, max_softmax=0.5)
    bundles.make_bundle(tmp_path / "b", variant={"confidence": thresholds}, outputs=outputs)
    with Runtime.open(tmp_path / "b") as quick, Runtime.open(tmp_path / "b") as slow:
        lane = quick._ladder.loaded[0].express
        slow._ladder.loaded[0].express = None
        taken = 0
        for row in np.random.default_rng(0).uniform(-1, 1, (300, 1, 4)).astype(np.float32):
            answer = slow.infer({"x": row})
            assert (lane.outputs({"x": row}) is None) == bool(answer.warnings)
            assert _outcome(quick, {"x": row})[:-1] == _outcome(slow, {"x": row})[:-1]
            taken += not answer.warnings
        assert 0 < taken <= 300 if kind == "values" else 0 < taken < 300
        assert quick.tally.counters["out_of_distribution"] == 300 - taken


def test_thresholds_over_several_rows_or_many_classes_have_none():
    thresholds = Confidence(max_softmax=0.5)
    for shape in ((2, 3), (1, MAX_CLASSES + 1), (), (1, 0)):
        assert quick_confidence(thresholds, "logits", np.zeros(shape, np.float32)) is None
    assert quick_confidence(thresholds, "logits", np.zeros((1, 1, MAX_CLASSES), np.float32)) is not None


@pytest.mark.parametrize("thresholds", [{"energy": 1e9}, {"max_softmax": 1e-9}, {"energy": -1.0}, {"energy": -1e9}])
def test_logits_that_are_not_finite_or_too_large_for_it_are_left_to_the_long_way(thresholds):
    row = np.float32([[1.0, 2.0, 3.0]])
    within = quick_confidence(Confidence(**thresholds), "logits", row)
    assert within() == (thresholds != {"energy": -1e9})
    for poison in (math.nan, math.inf, -math.inf, 1e30):
        for place in range(3):
            row[...] = [[1.0, 2.0, 3.0]]
            row[0, place] = poison
            assert not within()
    row[...] = -1e30
    assert not within()


def test_an_answer_at_the_threshold_itself_is_left_to_the_long_way():
    row = np.float32([[0.25, 0.5, 0.25]])
    assert not quick_confidence(Confidence(max_softmax=0.5), "probabilities", row)()
    assert quick_confidence(Confidence(max_softmax=0.49), "probabilities", row)()
    energy = -math.log(sum(map(math.exp, row[0].tolist())))
    assert not quick_confidence(Confidence(energy=energy), "logits", row)()
    assert quick_confidence(Confidence(energy=energy + 1e-6), "logits", row)()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8"])
@pytest.mark.filterwarnings("error")
def test_a_buffer_measures_finite_only_where_all_of_it_is(dtype):
    buffer = np.full((2, 40), 100, dtype)
    measure = fast_path._measure(InputGuard(), buffer)
    assert math.isfinite(measure())
    if dtype != "int8":
        for poison in (math.nan, math.inf, -math.inf):
            buffer[1, 3] = poison
            assert not math.isfinite(measure())


@pytest.mark.parametrize("guard", [{"maximum": 0.1}, {"features": (FeatureGuard(index=0, maximum=0.1),)}])
def test_a_bound_is_compared_as_the_tensor_holds_it(tmp_path, guard):
    at_the_bound = {"x": np.float32([[0.1, 0, 0, 0]])}  # which is over 0.1 in float64
    with Runtime.open(_bundle(tmp_path / "b", **guard)) as runtime:
        assert runtime._ladder.loaded[0].express.outputs(at_the_bound) is not None
        runtime._ladder.loaded[0].express = None
        assert runtime.infer(at_the_bound).warnings == ()
