"""Attention in the spellings of several exporters becomes one operator that computes the same; nothing else does."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.makers import onnx_models, sequence_models
from support.makers.sequence_models import LENGTH, WIDTH, Attention

from edge_compression.onnx_tools.graph import array, count_operators, initializers, load, save, session
from edge_compression.pass_api import Context, PassError
from edge_compression.passes import Compact, DynamicInt8, FuseTransformer

X = np.random.default_rng(5).standard_normal((16, LENGTH, WIDTH)).astype(np.float32)
SPELLINGS = ["separate", "stacked", "split", "time_first", "rows"]


def feeds() -> Iterator[dict[str, Any]]:
    for sample in X[:8]:
        yield {"x": sample[None]}


def context(model: bytes) -> Context:
    return Context(calibration=feeds, unquantized=model)


def answers(model: bytes, *, optimize: bool = True) -> Any:
    return session(model, optimize=optimize).run(None, {"x": X})[0]


@pytest.mark.parametrize("mask", ["none", "bias", "where", "expanded"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_becomes_one_operator_and_computes_the_same_for_any_batch(spelling: str, mask: str) -> None:
    original = save(Attention(spelling, mask).model())
    fused = FuseTransformer().apply(original, context(original)).model
    graph = load(fused)
    assert count_operators(graph, ("Attention",)) == 1
    assert count_operators(graph, ("Softmax", "Split")) == 0
    np.testing.assert_allclose(answers(fused), answers(original), atol=1e-4)
    np.testing.assert_allclose(answers(fused, optimize=False), answers(original), atol=1e-4)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_fused_model_is_quantized_with_its_attention(spelling: str) -> None:
    original = save(Attention(spelling, "bias").model())
    fused = FuseTransformer().apply(original, context(original)).model
    quantized = DynamicInt8().apply(fused, context(fused)).model
    small = Compact().apply(quantized, context(fused)).model
    assert count_operators(load(small), ("QAttention",)) == 1
    truth = answers(original)
    assert np.sqrt(np.mean((answers(small) - truth) ** 2)) < 0.03 * np.ptp(truth)


def test_a_mask_that_only_weakens_positions_is_left_alone() -> None:
    original = save(Attention("separate", "soft").model())
    with pytest.raises(PassError, match="no self-attention"):
        FuseTransformer().apply(original, context(original))


def test_heads_cut_in_another_order_than_side_by_side_are_still_found_by_their_columns() -> None:
    original = save(Attention("split").model())
    fused = load(FuseTransformer().apply(original, context(original)).model)
    weights = array(initializers(fused)["attention_0_weights"])
    before = array(initializers(load(original))["qkv_w"])
    size, heads = sequence_models.SIZE, sequence_models.HEADS
    by_head = before.reshape(WIDTH, heads, 3, size).swapaxes(1, 2).reshape(WIDTH, -1)
    np.testing.assert_array_equal(weights, by_head)


def test_queries_and_keys_of_different_sequences_are_no_self_attention() -> None:
    made = Attention("separate")
    product = next(node for node in made.nodes if node.output[0] == "k_all_product")
    made.nodes.insert(0, sequence_models.helper.make_node("Neg", ["x"], ["other"]))
    product.input[0] = "other"
    original = save(made.model())
    with pytest.raises(PassError, match="no self-attention"):
        FuseTransformer().apply(original, context(original))


def test_a_model_that_does_not_answer_the_same_afterwards_is_refused() -> None:
    made = Attention("separate")
    made.nodes[-1].output[0] = "sure"
    made.add("RandomNormalLike", ["sure"], ["noise"], scale=5.0)
    made.add("Add", ["sure", "noise"], ["y"])
    original = save(made.model())
    with pytest.raises(PassError, match="differs"):
        FuseTransformer().apply(original, context(original))


def test_a_model_without_attention_is_said_to_have_none() -> None:
    original = save(onnx_models.conv_classifier())
    calibration, _ = onnx_models.samples(4, seed=1)
    alone = Context(calibration=lambda: iter([{"x": one[None]} for one in calibration]), unquantized=original)
    with pytest.raises(PassError, match="no self-attention"):
        FuseTransformer().apply(original, alone)
