"""Distillation against ONNX Runtime's arithmetic and a model that lost channels. Needs torch, of the extra `train`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pruning_models
import pytest
import toolchain_models
import torch
from onnx import helper

from edge_compression.answer import answer
from edge_compression.contract import Context, PassError
from edge_compression.distil import with_mixtures
from edge_compression.onnx_graph import load, save, session
from edge_compression.passes import Distil, Prune
from edge_compression.torch_graph import TorchGraph

Array = np.ndarray[Any, Any]
TRAINING, _ = toolchain_models.samples(256, seed=10)
X, Y = toolchain_models.samples(400, seed=9)
SHAPE = (1, 4, 9, 8)

CASES = [
    ("Conv", {"kernel_shape": [3, 2], "strides": [2, 1], "dilations": [1, 2], "pads": [1, 0, 0, 1], "group": 2}),
    ("Conv", {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER", "group": 2}),
    ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("GlobalAveragePool", {}),
    ("GlobalMaxPool", {}),
    ("Clip", {}),
    ("PRelu", {}),
    ("LeakyRelu", {"alpha": 0.3}),
    ("Elu", {"alpha": 0.7}),
    ("HardSigmoid", {"alpha": 0.3}),
    ("HardSwish", {}),
    ("Softplus", {}),
    ("Softmax", {"axis": 1}),
    ("LayerNormalization", {"axis": 3}),
    ("BatchNormalization", {}),
    ("ReduceMean", {"axes": [1, 3], "keepdims": 0}),
    ("ReduceMax", {"axes": [2]}),
    ("Flatten", {"axis": 1}),
    ("Reshape", {}),
    ("Squeeze", {}),
    ("Unsqueeze", {}),
    ("Transpose", {"perm": [0, 2, 3, 1]}),
    ("Gather", {"axis": 2}),
    ("Pow", {}),
]
OTHERS = {
    "Conv": [np.random.default_rng(0).standard_normal((6, 2, 3, 2)).astype(np.float32), np.ones(6, np.float32)],
    "Clip": [np.float32(-0.5), np.float32(0.5)],
    "PRelu": [np.full((4, 1, 1), 0.25, np.float32)],
    "LayerNormalization": [np.full(8, 1.5, np.float32), np.full(8, 0.5, np.float32)],
    "BatchNormalization": [np.full(4, value, np.float32) for value in (1.5, 0.5, 0.1, 2.0)],
    "Reshape": [np.array([1, 0, -1])],
    "Squeeze": [np.array([4])],
    "Unsqueeze": [np.array([1, -1])],
    "Gather": [np.array([[0, -1], [3, 3]])],
    "Pow": [np.float32(2.0)],
}


@pytest.mark.parametrize(("kind", "attributes"), CASES)
def test_an_operator_in_torch_is_the_one_of_onnxruntime(kind: str, attributes: dict[str, Any]) -> None:
    constants = {f"c{index}": np.asarray(values) for index, values in enumerate(OTHERS.get(kind, []))}
    shape = [*SHAPE, 1] if kind == "Squeeze" else list(SHAPE)
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", *constants], ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    with torch.no_grad():
        found = TorchGraph(model)(torch.from_numpy(x), "y").numpy()
    np.testing.assert_allclose(found, session(save(model)).run(None, {"x": x})[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [pruning_models.residual, pruning_models.attention])
def test_a_whole_graph_in_torch_answers_a_batch_as_onnxruntime(make: Any) -> None:
    model = make()
    shape = [one.dim_value or 5 for one in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    with torch.no_grad():
        found = TorchGraph(model)(torch.from_numpy(x), "y").numpy()
    np.testing.assert_allclose(found, session(save(model)).run(None, {"x": x})[0], rtol=1e-3, atol=1e-4)


def feeds() -> Iterator[dict[str, Array]]:
    for sample in TRAINING:
        yield {"x": sample[None]}


@pytest.fixture(scope="module")
def context() -> Context:
    original = save(toolchain_models.conv_classifier())
    return Context(calibration=feeds, unquantised=original, original=original, training=feeds)


@pytest.fixture(scope="module")
def pruned(context: Context) -> bytes:
    return Prune(keep=0.3, multiple=2).apply(context.unquantised, context).model


def far(model: bytes, context: Context) -> float:
    truth = session(context.unquantised).run(None, {"x": X})[0]
    return float(np.square(session(model).run(None, {"x": X})[0] - truth).mean())


def test_training_brings_the_answers_nearer_to_the_originals(pruned: bytes, context: Context) -> None:
    applied = Distil(epochs=20, seconds=30.0).apply(pruned, context)
    assert far(applied.model, context) < 0.7 * far(pruned, context)
    assert float(applied.changed["error_after"]) < float(applied.changed["error_before"])
    before, after = load(pruned), load(applied.model)
    assert [node.op_type for node in before.graph.node] == [node.op_type for node in after.graph.node]
    assert len(applied.model) == len(pruned)


def test_the_same_samples_give_the_same_weights(pruned: bytes, context: Context) -> None:
    torch.set_num_threads(1)
    assert len({Distil(epochs=1).apply(pruned, context).model for _ in range(2)}) == 1


def test_weights_that_training_made_worse_are_not_kept(pruned: bytes, context: Context) -> None:
    applied = Distil(epochs=3, rate=1.0, mixtures=0).apply(pruned, context)
    assert applied.changed["error_after"] == applied.changed["error_before"]
    assert far(applied.model, context) == pytest.approx(far(pruned, context), rel=1e-4)


def test_time_bounds_the_steps(pruned: bytes, context: Context) -> None:
    applied = Distil(epochs=10_000, seconds=0.3).apply(pruned, context)
    assert 0 < int(applied.changed["steps"]) < int(applied.changed["steps_planned"])


def test_an_operator_that_cannot_be_trained_is_named_with_its_node(context: Context) -> None:
    model = toolchain_models.conv_classifier()
    model.graph.node[1].op_type = "Softsign"
    with pytest.raises(PassError, match=r"node relu \(Softsign\)"):
        Distil().apply(save(model), context)


def test_without_training_samples_or_an_original_it_says_so(pruned: bytes, context: Context) -> None:
    alone = Context(calibration=feeds, unquantised=pruned)
    with pytest.raises(PassError, match="original"):
        Distil().apply(pruned, alone)
    untrained = Context(calibration=feeds, unquantised=pruned, original=context.original)
    with pytest.raises(PassError, match="training samples"):
        Distil().apply(pruned, untrained)
    assert Distil(epochs=1, samples="calibration").apply(pruned, untrained).changed["steps"]


def test_answers_are_compared_before_a_last_softmax() -> None:
    model = toolchain_models.conv_classifier()
    assert answer(model) == "logits"
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["p"]))
    model.graph.output[0].name = "p"
    assert answer(model) == "logits"


def test_mixtures_are_between_samples_and_only_of_numbers_that_can_be_mixed() -> None:
    x = np.random.default_rng(0).random((10, 3), dtype=np.float32)
    mixed = with_mixtures(x, 2)
    assert mixed.shape == (30, 3)
    assert mixed.dtype == np.float32
    np.testing.assert_array_equal(mixed[:10], x)
    assert mixed.min() >= x.min()
    assert mixed.max() <= x.max()
    assert with_mixtures(x.astype(np.int64), 2).shape == (10, 3)
