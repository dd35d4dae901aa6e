"""Distillation against ONNX Runtime's arithmetic and a model that lost channels. Needs torch, of the extra `train`."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from support.makers import onnx_models, pruning_models

from edge_compression.distillation.augmentation import Augmentation
from edge_compression.distillation.torch_module import TorchGraph
from edge_compression.distillation.trainer import Training, distill
from edge_compression.evaluation.candidate import Candidate
from edge_compression.onnx_tools.graph import load, save, session
from edge_compression.onnx_tools.logits import logits_of
from edge_compression.pass_api import Context, PassError
from edge_compression.passes import Distill, MixedWeights, Prune, UnpackAtLoad, WeightOnly
from edge_compression.recipes.recipe import parse_recipe
from edge_compression.report.caveats import cut_short
from edge_compression.search.build_process import BuildPlan, BuildRefused, Built, apply_recipe
from edge_contracts.manifest import Input, SampleMapping

Array = np.ndarray[Any, Any]
TRAINING, _ = onnx_models.samples(256, seed=10)
X, Y = onnx_models.samples(400, seed=9)
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
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    with torch.no_grad():
        found = TorchGraph(model)(torch.from_numpy(x), "y").numpy()
    np.testing.assert_allclose(found, session(save(model)).run(None, {"x": x})[0], rtol=1e-4, atol=1e-5)


def stored_weights() -> onnx.ModelProto:
    data = save(onnx_models.conv_classifier())
    return load(WeightOnly().apply(data, Context(calibration=feeds, unquantized=data)).model)


@pytest.mark.parametrize("make", [pruning_models.residual, pruning_models.attention, stored_weights])
def test_a_whole_graph_in_torch_answers_a_batch_as_onnxruntime(make: Any) -> None:
    model = make()
    shape = [one.dim_value or 5 for one in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    with torch.no_grad():
        found = TorchGraph(model)(torch.from_numpy(x), model.graph.output[0].name).numpy()
    np.testing.assert_allclose(found, session(save(model)).run(None, {"x": x})[0], rtol=1e-3, atol=1e-4)


def feeds() -> Iterator[dict[str, Array]]:
    for sample in TRAINING:
        yield {"x": sample[None]}


@pytest.fixture(scope="module")
def context() -> Context:
    original = save(onnx_models.conv_classifier())
    return Context(calibration=feeds, unquantized=original, original=original, training=feeds)


@pytest.fixture(scope="module")
def pruned(context: Context) -> bytes:
    return Prune(keep=0.3, multiple=2).apply(context.unquantized, context).model


def far(model: bytes, context: Context) -> float:
    truth = session(context.unquantized).run(None, {"x": X})[0]
    return float(np.square(session(model).run(None, {"x": X})[0] - truth).mean())


def test_training_brings_the_answers_nearer_to_the_originals(pruned: bytes, context: Context) -> None:
    applied = Distill(steps=300).apply(pruned, context)
    assert far(applied.model, context) < 0.7 * far(pruned, context)
    assert float(applied.changed["error_after"]) < float(applied.changed["error_before"])
    before, after = load(pruned), load(applied.model)
    assert [node.op_type for node in before.graph.node] == [node.op_type for node in after.graph.node]
    assert len(applied.model) == len(pruned)


def test_the_same_samples_give_the_same_weights(pruned: bytes, context: Context) -> None:
    torch.set_num_threads(1)
    assert len({Distill(steps=10).apply(pruned, context).model for _ in range(2)}) == 1


def test_weights_that_training_made_worse_are_not_kept(pruned: bytes, context: Context) -> None:
    applied = Distill(steps=20, rate=1.0).apply(pruned, context)
    assert applied.changed["error_after"] == applied.changed["error_before"]
    assert far(applied.model, context) == pytest.approx(far(pruned, context), rel=1e-4)


@pytest.mark.parametrize(("seconds", "made"), [(100.0, 40), (30.0, 30)])
def test_the_training_ends_with_its_steps_or_its_time(
    pruned: bytes, context: Context, seconds: float, made: int
) -> None:
    seen = count(0.0, 1.0)
    how = Training(
        steps=40,
        seconds=seconds,
        rate=0.01,
        batch=8,
        variations=Augmentation(mixtures=0.5, shift=0.125),
        clock=lambda: next(seen),
    )
    original = session(context.unquantized)
    pupil = TorchGraph(load(pruned))
    found = distill(pupil, "logits", lambda x: answers(original, x), TRAINING, how)
    assert found.steps == made
    assert found.after < found.before


def answers(opened: Any, x: Array) -> Array:
    return np.concatenate([opened.run(["logits"], {"x": one[None]})[0] for one in x])


def test_a_budget_that_is_far_too_short_is_said_so_before_other_passes_work(context: Context) -> None:
    for left in (0.0, -5.0):
        with pytest.raises(PassError, match=r"steps of training take .* left for them"):
            Distill().foresee(context.unquantized, replace(context, seconds_left=lambda left=left: left))
    with pytest.raises(PassError, match=r"steps of training take .* left for them"):
        Distill(steps=1_000_000, seconds=1.0).apply(context.unquantized, context)


RECIPE = """summary = "s"
[[passes]]
pass = "prune"
keep = 0.5
samples = "training"
[[passes]]
pass = "distill"
steps = STEPS
"""


def plan(folder: Path, steps: int, seconds: float | None) -> BuildPlan:
    onnx_models.write_task(folder)
    np.save(folder / "train_x.npy", TRAINING)
    mapping = SampleMapping(dtype="float32", offset=0.0, scale=1.0)
    return BuildPlan(
        recipe_id="trained",
        recipe=RECIPE.replace("STEPS", str(steps)),
        skip=0,
        model=str(folder / "waves.onnx"),
        calibration=str(folder / "train_x.npy"),
        count=16,
        tensors=(Input(name="x", dtype="float32", shape=(-1, *TRAINING.shape[1:]), sample=mapping),),
        out=str(folder / "trained.onnx"),
        memory_limit_mb=2048.0,
        training=str(folder / "train_x.npy"),
        seconds=seconds,
    )


def test_a_build_prunes_and_trains(tmp_path: Path) -> None:
    made = apply_recipe(plan(tmp_path, 20, None))
    assert isinstance(made, Built)
    pruned, trained = made.changes
    assert pruned["pass"] == "prune"
    assert trained["steps"] == 20
    assert (tmp_path / "trained.onnx").exists()


def test_a_build_with_too_little_time_for_its_training_does_not_begin(tmp_path: Path) -> None:
    made = apply_recipe(plan(tmp_path, 2000, 0.0))
    assert isinstance(made, BuildRefused)
    assert made.step == "distill"
    assert made.text.startswith("2000 steps of training take")
    assert made.text.endswith("use a longer --budget")


def test_the_report_names_what_was_trained_for_too_short_a_time() -> None:
    recipe = parse_recipe(RECIPE.replace("STEPS", "50"), "trained")
    whole = Candidate(recipe=recipe, changes=({"pass": "prune"}, {"pass": "distill", "steps": 50, "steps_wanted": 50}))
    short = Candidate(recipe=recipe, changes=({"pass": "distill", "steps": 9, "steps_wanted": 50},))
    assert list(cut_short([whole])) == []
    assert "trained (9 of 50)" in next(cut_short([whole, short]))


def test_weights_in_few_bits_are_trained_with_their_rounding(context: Context) -> None:
    stored = MixedWeights(sqnr=6.0).apply(context.unquantized, context).model
    applied = Distill(steps=300).apply(stored, context)
    assert far(applied.model, context) < 0.7 * far(stored, context)
    before, after = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in load(model).graph.initializer}
        for model in (stored, applied.model)
    )
    assert {name: values.dtype for name, values in before.items()} == {n: values.dtype for n, values in after.items()}
    whole = [name for name, values in before.items() if values.dtype == np.int8]
    assert whole
    for name in whole:
        assert np.abs(after[name]).max() <= np.abs(before[name]).max()
        assert (after[name] != before[name]).any()
    unpacked = UnpackAtLoad().apply(applied.model, context).model
    assert far(unpacked, context) == pytest.approx(far(applied.model, context), rel=1e-3)


def test_weights_in_eight_bits_are_not_drowned_in_their_rounding(context: Context) -> None:
    noisy, random = load(context.unquantized), np.random.default_rng(0)
    for tensor in noisy.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            noise = 0.005 * values.std() * random.standard_normal(values.shape)
            tensor.CopyFrom(numpy_helper.from_array((values + noise).astype(np.float32), tensor.name))
    stored = WeightOnly().apply(save(noisy), context).model
    applied = Distill(steps=100, rate=0.05).apply(stored, context)
    assert far(applied.model, context) < 0.2 * far(stored, context)


def test_an_operator_that_cannot_be_trained_is_named_with_its_node(context: Context) -> None:
    model = onnx_models.conv_classifier()
    model.graph.node[1].op_type = "Softsign"
    with pytest.raises(PassError, match=r"node relu \(Softsign\)"):
        Distill().apply(save(model), context)


def test_without_training_samples_or_an_original_it_says_so(pruned: bytes, context: Context) -> None:
    alone = Context(calibration=feeds, unquantized=pruned)
    with pytest.raises(PassError, match="original"):
        Distill().apply(pruned, alone)
    untrained = Context(calibration=feeds, unquantized=pruned, original=context.original)
    with pytest.raises(PassError, match="training samples"):
        Distill().apply(pruned, untrained)
    assert Distill(steps=1, samples="calibration").apply(pruned, untrained).changed["steps"]


def test_answers_are_compared_before_a_last_softmax() -> None:
    model = onnx_models.conv_classifier()
    assert logits_of(model) == "logits"
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["p"]))
    model.graph.output[0].name = "p"
    assert logits_of(model) == "logits"


def test_mixtures_are_between_samples_and_only_of_numbers_that_can_be_mixed() -> None:
    random = np.random.default_rng(0)
    x = random.random((200, 3), dtype=np.float32)
    mixed = Augmentation(mixtures=0.5, shift=0.4).of(x, random)
    assert mixed.shape == x.shape
    assert mixed.dtype == np.float32
    assert 40 < (mixed == x).all(axis=1).sum() < 160
    assert mixed.min() >= x.min()
    assert mixed.max() <= x.max()
    tokens = random.integers(0, 9, (10, 3))
    np.testing.assert_array_equal(Augmentation(mixtures=1.0, shift=0.4).of(tokens, random), tokens)


def test_shifts_move_a_sample_along_its_long_axes_and_repeat_its_border() -> None:
    random = np.random.default_rng(0)
    x = np.broadcast_to(np.arange(16, dtype=np.float32), (50, 3, 16))
    shifted = Augmentation(mixtures=0.0, shift=0.125).of(x, random)
    moves = shifted[:, 0, 8] - 8
    assert set(moves) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    np.testing.assert_array_equal(shifted[:, 0], np.clip(np.arange(16) + moves[:, None], 0, 15))
    np.testing.assert_array_equal(shifted[:, 0], shifted[:, 2])
