"""Passes that prepare a model for quantization: the function stays, what rounding does to it gets less."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from support.makers import onnx_models
from support.makers.sequence_models import LENGTH, WIDTH

from edge_compression.onnx_tools.graph import array, initializers, load, save, session
from edge_compression.pass_api import Context, PassError
from edge_compression.passes import Equalize, Smooth, StaticInt8

GENERATOR = np.random.default_rng(8)
X = GENERATOR.standard_normal((24, 3, 16)).astype(np.float32)
CHANNELS = 8


def context(model: bytes, x: Any) -> Context:
    def feeds() -> Iterator[dict[str, Any]]:
        for sample in x:
            yield {"x": sample[None]}

    return Context(calibration=feeds, unquantized=model)


def answers(model: bytes, x: Any, *, optimize: bool = True) -> Any:
    return session(model, optimize=optimize).run(None, {"x": x})[0]


def convolutions(between: str, *, spread: float = 2.5) -> onnx.ModelProto:
    """Return conv, `between`, depthwise conv, `between`, conv: the channels of the first layers are of very
    different sizes, as after folding batch norms."""
    generator = np.random.default_rng(9)
    sizes = np.logspace(0, spread, CHANNELS)[:, None, None]
    constants = {
        "a": generator.standard_normal((CHANNELS, 3, 3)) * sizes,
        "a_bias": generator.standard_normal(CHANNELS) * sizes[:, 0, 0],
        "b": generator.standard_normal((CHANNELS, 1, 3)) * generator.permutation(sizes),
        "c": generator.standard_normal((5, CHANNELS, 3)),
        "six": np.array(6.0),
    }

    def act(source: str, target: str) -> onnx.NodeProto:
        inputs = [source, "", "six"] if between == "Clip" else [source]
        return helper.make_node(between, inputs, [target])

    nodes = [
        helper.make_node("Conv", ["x", "a", "a_bias"], ["a_out"]),
        act("a_out", "a_act"),
        helper.make_node("Conv", ["a_act", "b"], ["b_out"], group=CHANNELS),
        act("b_out", "b_act"),
        helper.make_node("Conv", ["b_act", "c"], ["c_out"]),
    ]
    typed = {name: values.astype(np.float32) for name, values in constants.items()}
    return onnx_models.model(nodes, typed, (3, 16), (5, 10), output="c_out")


@pytest.mark.parametrize("between", ["Relu", "LeakyRelu", "Identity"])
def test_equalized_layers_compute_the_same_and_have_like_ranges(between: str) -> None:
    original = save(convolutions(between))
    applied = Equalize().apply(original, context(original, X))
    assert applied.changed["pairs"] == 2
    truth = answers(original, X)
    np.testing.assert_allclose(answers(applied.model, X), truth, atol=2e-5 * np.abs(truth).max())
    constants = initializers(load(applied.model))
    a, b, c = (array(constants[name]) for name in "abc")
    reaches = np.stack([np.abs(a).max((1, 2)), np.abs(b).max((1, 2)), np.abs(c).max((0, 2))])
    np.testing.assert_allclose(reaches[0], reaches[1], rtol=0.05)
    np.testing.assert_allclose(reaches[1], reaches[2], rtol=0.05)


def test_one_scale_a_tensor_loses_far_less_after_equalization() -> None:
    original = save(convolutions("Relu"))
    known = context(original, X)
    step = StaticInt8(per_channel=False)
    truth = answers(original, X)
    plain = answers(step.apply(original, known).model, X, optimize=False)
    equal = answers(step.apply(Equalize().apply(original, known).model, known).model, X, optimize=False)
    assert np.mean((equal - truth) ** 2) < 0.5 * np.mean((plain - truth) ** 2)


def test_a_bound_that_is_the_same_for_all_channels_stops_equalization() -> None:
    original = save(convolutions("Clip"))
    with pytest.raises(PassError, match="no two layers"):
        Equalize().apply(original, context(original, X))


def test_a_channel_that_something_else_reads_too_is_left() -> None:
    made = convolutions("Relu")
    made.graph.output.append(helper.make_tensor_value_info("a_act", onnx.TensorProto.FLOAT, None))
    applied = Equalize().apply(save(made), context(save(made), X))
    assert applied.changed["pairs"] == 1


TOKENS = GENERATOR.standard_normal((24, LENGTH, WIDTH)).astype(np.float32)


def normalized(*, shared: bool = False) -> onnx.ModelProto:
    """Return a layer norm with outliers in few features and two products that read it."""
    generator = np.random.default_rng(10)
    scale = np.ones(WIDTH)
    scale[::8] = 60.0
    constants = {
        "scale": scale,
        "bias": generator.standard_normal(WIDTH),
        "v": generator.standard_normal((WIDTH, WIDTH)),
        "w": generator.standard_normal((WIDTH, WIDTH)),
    }
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["n"], axis=-1),
        helper.make_node("MatMul", ["n", "v"], ["p"]),
        helper.make_node("MatMul", ["n", "w"], ["q"]),
        helper.make_node("Relu", ["q"], ["r"]),
        helper.make_node("Add", ["p", "n" if shared else "r"], ["y"]),
    ]
    typed = {name: values.astype(np.float32) for name, values in constants.items()}
    return onnx_models.model(nodes, typed, (LENGTH, WIDTH), (LENGTH, WIDTH), output="y")


def test_smoothing_keeps_the_function_and_takes_outliers_out_of_the_activations() -> None:
    original = save(normalized())
    known = context(original, TOKENS)
    applied = Smooth(strength=0.8).apply(original, known)
    truth = answers(original, TOKENS)
    np.testing.assert_allclose(answers(applied.model, TOKENS), truth, atol=1e-5 * np.abs(truth).max())
    assert applied.changed["norms"] == 1
    step = StaticInt8()
    plain = answers(step.apply(original, known).model, TOKENS, optimize=False)
    smooth = answers(step.apply(applied.model, known).model, TOKENS, optimize=False)
    assert np.mean((smooth - truth) ** 2) < 0.9 * np.mean((plain - truth) ** 2)


def test_a_norm_that_something_else_reads_is_left() -> None:
    original = save(normalized(shared=True))
    with pytest.raises(PassError, match="no layer norm"):
        Smooth().apply(original, context(original, TOKENS))
