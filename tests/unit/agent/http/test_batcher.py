"""Micro-batching: the same answers as alone, within the bound on waiting, and no batch where it could matter."""

import asyncio
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.makers import bundles
from support.parts.batcher import ROWS

from edge_agent.config.agent_toml import parse_config
from edge_agent.config.inference_options import Batching
from edge_agent.errors import ConfigError, TensorError
from edge_agent.http.batcher import Batcher
from edge_agent.inference.runtime import Runtime


def answer_all(runtime, requests, batching):
    """Ask all at once; return answers or exceptions in order."""

    async def run():
        batcher = Batcher(runtime, batching)
        return await asyncio.gather(*(batcher.infer({"x": x}) for x in requests), return_exceptions=True)

    return asyncio.run(run())


def batches_of(runtime):
    """Count the rows of every call of the engine from now on."""
    rung, sizes = runtime._ladder.loaded[0], []
    rung.express = None
    inner = rung.session._run

    def counted(names, feeds, options):
        sizes.append(len(next(iter(feeds.values()))))
        return inner(names, feeds, options)

    rung.session._run = counted
    return sizes


@pytest.fixture
def runtime(tmp_path):
    with Runtime.open(bundles.make_bundle(tmp_path / "b").folder) as made:
        yield made


def test_answers_in_a_batch_are_the_single_ones(runtime):
    alone = [runtime.infer({"x": x}) for x in ROWS]
    before = runtime.tally.counters["requests"]
    together = answer_all(runtime, ROWS, Batching(max=8, wait_ms=20))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other.outputs["y"], one.outputs["y"], rtol=1e-6)
        assert other.outputs["y"].shape == (1, 3)
        assert (other.served_by, other.model_sha256, other.warnings) == (one.served_by, one.model_sha256, ())
    assert runtime.tally.counters["requests"] == before + len(ROWS)
    assert sum(runtime.tally.latency_log2_us) == before + len(ROWS)


def test_a_full_batch_goes_at_once_and_the_rest_after_the_wait(runtime):
    answer_all(runtime, ROWS[:2], Batching(max=2))  # proved
    sizes = batches_of(runtime)
    start = time.monotonic()
    answer_all(runtime, ROWS[:10], Batching(max=4, wait_ms=50))
    assert sizes == [4, 4, 2]
    assert 0.045 < time.monotonic() - start < 1.0


def test_one_bad_request_in_a_batch_is_refused_and_the_others_are_answered(runtime):
    bad = [np.full((1, 4), np.nan, np.float32), np.zeros((1, 5), np.float32)]
    found = answer_all(runtime, [ROWS[0], bad[0], ROWS[1], bad[1], ROWS[2]], Batching(max=5))
    assert [isinstance(result, TensorError) for result in found] == [False, True, False, True, False]
    np.testing.assert_allclose(found[4].outputs["y"], runtime.infer({"x": ROWS[2]}).outputs["y"], rtol=1e-6)


def test_tags_travel_with_requests_that_are_answered_together(runtime):
    answer_all(runtime, ROWS[:2], Batching(max=2))  # proved
    runtime.forget()
    tags = ["a", "b", None, "a", "bad tag"]

    def ask(asked, most):
        async def run():
            batcher = Batcher(runtime, Batching(max=most))
            waiting = (batcher.infer({"x": x}, tag) for x, tag in zip(ROWS, asked, strict=False))
            return await asyncio.gather(*waiting, return_exceptions=True)

        return asyncio.run(run())

    sizes = batches_of(runtime)
    met, count = [], runtime.seen_by_tag.of
    runtime.seen_by_tag.of = lambda tag: met.append(tag) or count(tag)
    assert not any(isinstance(result, Exception) for result in ask(tags[:4], 4))
    assert (sizes, met) == ([4], ["a", "b", "a"])
    found = ask(tags, 5)
    assert [isinstance(result, TensorError) for result in found] == [False, False, False, False, True]
    assert sizes == [4, 1, 1, 1, 1]


def test_requests_of_different_shapes_are_asked_alone(runtime):
    found = answer_all(runtime, [ROWS[0], np.concatenate(ROWS[:3])], Batching(max=2))
    assert [answer.outputs["y"].shape for answer in found] == [(1, 3), (3, 3)]


def test_a_failing_batch_does_not_blame_the_rung_of_the_others(tmp_path):
    bundle = bundles.make_bundle(
        tmp_path / "b", models=[("first", bundles.nan_model()), ("second", bundles.linear_model())]
    )
    with Runtime.open(bundle.folder) as runtime:
        poison = np.array([[200, 0, 0, 0]], np.float32)
        found = answer_all(runtime, [ROWS[0], poison, ROWS[1]], Batching(max=3))
    assert [answer.served_by.rpartition("/")[2] for answer in found] == ["first", "second", "first"]


def mixing_model():
    """Return a model that scales its answers by the largest number in the batch, as dynamic quantization does."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Div", ["x", "top"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(bundles.WEIGHTS, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def test_a_model_whose_answers_depend_on_the_batch_is_never_batched(tmp_path):
    bundle = bundles.make_bundle(tmp_path / "b", models=[("mixing", mixing_model())])
    with Runtime.open(bundle.folder) as runtime:
        alone = [runtime.infer({"x": x}).outputs["y"] for x in ROWS]
        answer_all(runtime, ROWS[:2], Batching(max=2))
        sizes = batches_of(runtime)
        together = [answer.outputs["y"] for answer in answer_all(runtime, ROWS, Batching(max=8))]
    assert sizes == [1] * len(ROWS)
    assert all((one == other).all() for one, other in zip(alone, together, strict=True))


def test_batching_is_off_unless_a_slot_asks_for_it_and_its_bounds_are_checked():
    def slot(**batch):
        plain = {"device": {"id": "d"}, "slots": [{"name": "s", "factory": "b", **batch}]}
        return parse_config(plain).slots[0].batch

    assert slot() is None
    assert slot(batch={"max": 8, "wait_ms": 2}) == Batching(max=8, wait_ms=2.0)
    with pytest.raises(ConfigError, match="wait_ms"):
        slot(batch={"wait_ms": 0})
