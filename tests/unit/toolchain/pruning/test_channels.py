"""Which channels depend on each other, by brute force: a graph without them answers as one that ignores them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from support.makers import onnx_models, pruning_models

from edge_compression.onnx_tools.graph import array, initializers, save, session
from edge_compression.pruning.channels.graph import channel_graph, counts, remove
from edge_compression.pruning.channels.labels import ChannelLabels, essential

Array = np.ndarray[Any, Any]
GRAPHS = [pruning_models.residual, pruning_models.depthwise, pruning_models.branches, pruning_models.attention]


def sample(model: onnx.ModelProto, seed: int = 3) -> dict[str, Array]:
    shape = [one.dim_value or 1 for one in model.graph.input[0].type.tensor_type.shape.dim]
    return {"x": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)}


def answers(model: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    onnx.checker.check_model(model)
    return np.asarray(session(save(model)).run(None, feeds)[0])


@pytest.mark.parametrize("make", GRAPHS)
@pytest.mark.parametrize("seed", range(4))
def test_removing_channels_is_ignoring_them(make: Callable[[int], onnx.ModelProto], seed: int) -> None:
    model = make(seed)
    feeds = sample(model)
    graph = channel_graph(model, feeds)
    random = np.random.default_rng(seed)
    gone = {
        int(unit)
        for site in graph.sites
        for unit in random.permutation(site.units)[: random.integers(1, site.units.size)]
    }
    removed = remove(model, graph, gone)
    np.testing.assert_allclose(
        answers(removed, feeds), answers(pruning_models.with_zeroed_columns(model, graph, gone), feeds), atol=1e-4
    )
    assert counts(graph, gone)[0] == sum(
        array(one).size
        for one in initializers(removed).values()
        if one.name in {layer.weight for layer in graph.layers}
    )


@pytest.mark.parametrize(
    ("make", "sizes"),
    [
        (pruning_models.residual, [12, 8]),  # inner channels; those the sum ties together
        (pruning_models.depthwise, [4, 6]),  # the grouped convolution's groups with all before it; what is flattened
        (pruning_models.branches, [8, 6, 4]),
        (pruning_models.attention, [4, 24]),  # heads; the hidden layer
    ],
)
def test_what_goes_together_is_one_unit(make: Callable[[], onnx.ModelProto], sizes: list[int]) -> None:
    model = make()
    graph = channel_graph(model, sample(model))
    assert sorted(site.units.size for site in graph.sites) == sorted(sizes)


def classifier(between: list[onnx.NodeProto], constants: dict[str, Array] | None = None) -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    weights = {
        "w0": generator.standard_normal((8, 3, 1, 1)).astype(np.float32),
        "w1": generator.standard_normal((4, 8, 1, 1)).astype(np.float32),
        **(constants or {}),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c"]),
        *between,
        helper.make_node("Conv", ["d", "w1"], ["z"]),
        helper.make_node("ReduceMean", ["z"], ["y"], axes=[2, 3], keepdims=0),
    ]
    return onnx_models.model(nodes, weights, [3, 4, 4], [4], output="y")


@pytest.mark.parametrize(
    "between",
    [
        [helper.make_node("LRN", ["c"], ["d"], size=3)],  # an operator without a rule
        [helper.make_node("Softmax", ["c"], ["d"], axis=1)],  # channels share a sum
        [
            helper.make_node("DepthToSpace", ["c"], ["e"], blocksize=2),
            helper.make_node("SpaceToDepth", ["e"], ["d"], blocksize=2),
        ],
        [helper.make_node("ReduceMean", ["c"], ["m"], axes=[1]), helper.make_node("Sub", ["c", "m"], ["d"])],
        [helper.make_node("Shape", ["c"], ["s"]), helper.make_node("Reshape", ["c", "s"], ["d"])],
        [helper.make_node("Slice", ["c", "from", "to", "axis", "step"], ["d"])],
    ],
    ids=["no rule", "softmax", "blocks", "mean over channels", "computed shape", "backwards"],
)
def test_what_is_not_understood_keeps_its_channels(between: list[onnx.NodeProto]) -> None:
    constants = {"from": [-1], "to": [-9], "axis": [1], "step": [-1]}
    used = {name: np.array(values) for name, values in constants.items() if any(name in node.input for node in between)}
    model = classifier(between, used)
    assert channel_graph(model, sample(model)).sites == ()


def test_a_constant_shape_that_two_nodes_share_is_changed_for_the_one_that_lost_channels() -> None:
    model = pruning_models.attention()
    model.graph.node[-1].input[0] = "same"
    same = helper.make_node("Reshape", ["d", "target"], ["same"])
    model.graph.node.insert(len(model.graph.node) - 1, same)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, 6, pruning_models.CLASSES]), "target"))
    feeds = sample(model)
    graph = channel_graph(model, feeds)
    removed = remove(model, graph, {int(graph.sites[0].units[0])})
    assert same.input[1] in {name for node in removed.graph.node for name in node.input}
    assert answers(removed, feeds).shape == (1, pruning_models.CLASSES)


def test_labels_that_repeat_take_no_memory_and_joining_them_joins_all() -> None:
    labels = ChannelLabels()
    channels = np.broadcast_to(labels.fresh((1, 4, 1)), (1, 4, 1000))
    assert essential(channels).shape == (1, 4, 1)
    assert labels.varying(channels) == (1,)
    labels.join(channels[:, :2], channels[:, 2:])
    assert labels.roots(channels)[0, :, 7].tolist() == [1, 2, 1, 2]
    labels.freeze(channels[:, :1])
    assert labels.roots(channels)[0, :, 0].tolist() == [0, 2, 0, 2]
