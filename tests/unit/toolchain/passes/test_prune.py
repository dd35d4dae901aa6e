"""Pruning: order against exhaustive search, refit against least squares, plans, and the passes on fitted models."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from support.makers import onnx_models, pruning_models
from support.parts.prune import Array, context, feeds

from edge_compression.onnx_tools.graph import array, initializers, load, save, session
from edge_compression.pass_api import Context, PassError
from edge_compression.passes import LowRank, Prune, StaticInt8
from edge_compression.pruning import refit as refitting
from edge_compression.pruning.affine_layers import affine_layers
from edge_compression.pruning.channel_order import Reader, removal_steps
from edge_compression.pruning.channels.graph import channel_graph, remove
from edge_compression.pruning.low_rank import factors, smallest_rank
from edge_compression.pruning.plan import first_within, grown, levels, path

X, Y = onnx_models.samples(400, seed=9)


@pytest.fixture(scope="module")
def original() -> bytes:
    return save(onnx_models.conv_classifier())


def score(model: bytes) -> float:
    return float(np.mean(session(model).run(None, {"x": X})[0].argmax(axis=1) == Y))


def least_squares_loss(rows: Array, x: Array, kept: list[int]) -> float:
    wanted = x @ rows.T
    fitted = np.linalg.lstsq(x[:, kept], wanted, rcond=None)[0]
    return float(np.square(x[:, kept] @ fitted - wanted).sum() / np.square(wanted).sum())


@pytest.mark.parametrize("seed", range(4))
def test_the_order_is_near_the_best_of_all_choices(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.standard_normal((200, 12)) @ random.standard_normal((12, 12))
    rows, owners = random.standard_normal((5, 12)), np.repeat(np.arange(1, 7), 2)
    order, states = removal_steps(np.arange(1, 7), [Reader(rows=rows, moments=x.T @ x, units=owners)], (3,))
    losses = {
        kept: least_squares_loss(rows, x, [2 * unit - 2 + half for unit in kept for half in (0, 1)])
        for kept in itertools.combinations(range(1, 7), 3)
    }
    chosen = tuple(sorted(set(range(1, 7)) - set(order)))
    assert losses[chosen] <= 2.0 * min(losses.values())
    gone = np.isin(owners, order)
    refitted = states[3][0]
    assert not refitted[:, gone].any()
    found = np.square(x @ refitted.T - x @ rows.T).sum() / np.square(x @ rows.T).sum()
    assert found == pytest.approx(losses[chosen], abs=0.01)


def test_a_channel_that_another_repeats_goes_first() -> None:
    x = np.random.default_rng(0).standard_normal((100, 4))
    x[:, 3] = 2.0 * x[:, 1]
    order, states = removal_steps(
        np.arange(1, 5), [Reader(rows=np.ones((2, 4)), moments=x.T @ x, units=np.arange(1, 5))], (3,)
    )
    assert order[0] in (2, 4)
    np.testing.assert_allclose(x @ states[3][0].T, x @ np.ones((4, 2)), atol=0.1)


def test_the_refit_is_least_squares_and_only_kept_if_held_out_samples_agree() -> None:
    random = np.random.default_rng(1)
    x, truth = random.standard_normal((400, 6)).astype(np.float32), random.standard_normal((3, 6))

    def samples() -> Iterator[dict[str, Array]]:
        return ({"x": one[None]} for one in x)

    fitting, held_out = refitting.sums(lambda one: one["x"], lambda one: one["x"] @ truth.T, samples)
    np.testing.assert_allclose(fitting.own + held_out.own, x.T @ x, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(refitting.refit(np.zeros((3, 6)), fitting, held_out), truth, atol=0.01)
    assert held_out.error(truth) == pytest.approx(0.0, abs=1e-6)
    assert held_out.error(np.zeros((3, 6))) == pytest.approx(1.0)
    assert refitting.refit(truth, fitting, held_out) is truth


def test_levels_are_multiples_that_kernels_like_and_finer_only_for_narrow_sites() -> None:
    assert levels(64, 8) == (56, 48, 40, 32, 24, 16, 8)
    assert levels(16, 8) == (12, 8, 4)
    assert levels(4, 8) == (3, 2, 1)
    assert len(levels(1280, 8)) == 8
    assert levels(1280, 8)[-1] == 8


def test_each_step_of_a_plan_loses_least_for_what_it_saves() -> None:
    losses = [{3: 0.5, 2: 0.6, 1: 0.65}, {3: 0.1, 2: 0.2, 1: 3.0}]
    plans = list(path((4, 4), losses, lambda plan: float(sum(plan))))
    assert plans[:3] == [(4, 3), (4, 2), (1, 2)]  # the first site: three channels for 0.65 are cheaper than one for 0.5
    assert plans[-1] == (1, 1)
    assert first_within(plans, lambda plan: sum(plan) <= 3) == (1, 2)
    assert first_within(plans, lambda plan: sum(plan) <= 1) is None
    assert grown((1, 1), losses, lambda plan: sum(plan) <= 5) == (2, 3)


def test_half_the_weights_go_and_the_model_answers_as_before(original: bytes) -> None:
    applied = Prune(keep=0.5).apply(original, context(original))
    weights = initializers(load(applied.model))
    assert list(weights["kernel"].dims) == [16, 3, 9]
    assert list(weights["weights"].dims) == [16, 4]
    assert applied.changed["weights_kept"] == 0.5
    assert score(applied.model) > score(original) - 0.02
    assert session(applied.model).run(None, {"x": X[:3]})[0].shape == (3, 4)


def test_refitted_readers_are_nearer_than_cut_ones(original: bytes) -> None:
    model = load(original)
    graph = channel_graph(model, next(feeds()))
    gone = sorted(graph.sites[0].units.tolist())[:20]
    cut = remove(model, graph, gone)
    refitted = remove(model, graph, gone)
    kept = {one.node.output[0]: ~np.isin(one.given, gone) for one in graph.layers}
    assert refitting.refit_layers(refitted, model, kept, feeds) == 1
    truth = session(original).run(None, {"x": X})[0]
    far = [float(np.square(session(save(one)).run(None, {"x": X})[0] - truth).sum()) for one in (cut, refitted)]
    assert far[1] < 0.3 * far[0]


def test_multiplications_may_be_the_target(original: bytes) -> None:
    applied = Prune(keep=0.4, of="products", multiple=4).apply(original, context(original))
    assert float(applied.changed["products_kept"]) <= 0.4
    assert int(applied.changed["channels_after"]) == 12


@pytest.mark.parametrize("make", [pruning_models.residual, pruning_models.depthwise, pruning_models.attention])
def test_graphs_of_all_kinds_come_out_smaller_and_valid(make: Any) -> None:
    model = make()
    shape = [one.dim_value or 1 for one in model.graph.input[0].type.tensor_type.shape.dim]
    random = np.random.default_rng(0)
    samples = [{"x": random.standard_normal(shape).astype(np.float32)} for _ in range(24)]
    applied = Prune(keep=0.6, multiple=2).apply(
        save(model), Context(calibration=lambda: iter(samples), unquantized=save(model))
    )
    onnx.checker.check_model(load(applied.model))
    assert session(applied.model).run(None, samples[0])[0].shape == (1, pruning_models.CLASSES)
    assert float(applied.changed["weights_kept"]) <= 0.6


def test_the_same_model_and_samples_give_the_same_bytes(original: bytes) -> None:
    assert len({Prune(keep=0.5).apply(original, context(original)).model for _ in range(2)}) == 1


def test_what_cannot_be_pruned_is_refused_with_the_reason(original: bytes) -> None:
    quantized = StaticInt8().apply(original, context(original)).model
    with pytest.raises(PassError, match="no channel"):
        Prune().apply(quantized, context(quantized))
    with pytest.raises(PassError, match="is left"):
        Prune(keep=0.01).apply(original, context(original))
    with pytest.raises(PassError, match="would take"):
        Prune(seconds=0.001).apply(original, context(original))
    with pytest.raises(PassError, match=r"data\.train"):
        Prune(samples="training").apply(original, context(original))


def test_a_bias_is_found_beside_a_matrix_product_and_made_where_there_is_none() -> None:
    model = pruning_models.depthwise()
    layers = affine_layers(model)
    assert layers["product"].bias == "b2"
    before = layers["c3"].rows(model)
    layers["c3"].write(model, before + 1.0)
    assert array(initializers(model)["c3_bias"]).tolist() == [1.0] * 6
    np.testing.assert_allclose(affine_layers(model)["c3"].rows(model), before + 1.0, rtol=1e-6)
    assert "c1" not in layers  # depthwise


def test_factors_lose_what_they_say_and_less_than_plain_ones() -> None:
    random = np.random.default_rng(2)
    x = random.standard_normal((300, 10)) * np.geomspace(10.0, 0.1, 10)
    rows = random.standard_normal((8, 10))
    outer, inner, losses = factors(rows, x.T @ x)
    left, values, right = np.linalg.svd(rows, full_matrices=False)
    for rank in range(1, 9):
        own = np.square(x @ (rows - outer[:, :rank] @ inner[:rank]).T).sum() / np.square(x @ rows.T).sum()
        plain = np.square(x @ (rows - (left[:, :rank] * values[:rank]) @ right[:rank]).T).sum()
        assert own == pytest.approx(losses[rank - 1], abs=1e-3)
        assert own * np.square(x @ rows.T).sum() <= plain + 1e-6
    assert smallest_rank(np.array([0.5, 0.1, 0.0]), 0.2) == 2


@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
def test_a_matrix_of_low_rank_becomes_two_with_the_same_answers(kind: str) -> None:
    random = np.random.default_rng(3)
    weights = (random.standard_normal((96, 4)) @ random.standard_normal((4, 32))).astype(np.float32)
    node = onnx.helper.make_node(kind, ["flat", "w"], ["y"])
    flatten = onnx.helper.make_node("Flatten", ["x"], ["flat"])
    model = save(onnx_models.model([flatten, node], {"w": weights}, [3, 32], [32], output="y"))
    applied = LowRank(loss=0.001).apply(model, context(model))
    assert applied.changed["ranks"] == "4"
    assert "w" not in initializers(load(applied.model))
    np.testing.assert_allclose(
        session(applied.model).run(None, {"x": X})[0], session(model).run(None, {"x": X})[0], rtol=1e-3, atol=1e-3
    )


def test_a_matrix_that_needs_its_rank_is_left(original: bytes) -> None:
    with pytest.raises(PassError, match="pays"):
        LowRank(loss=1e-6).apply(original, context(original))
