"""A task's steps and answers: the same arithmetic while compressing as on the device that gets the bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.makers import onnx_models

from edge_agent.inference.runtime import Runtime
from edge_agent.inference.samples import write_arrays
from edge_agent.ipc.trial import TrialPlan
from edge_agent.ports import TensorInfo
from edge_agent.trial.__main__ import run_trial
from edge_bench.task import check_model, read_task
from edge_compression import Options, compress
from edge_compression.recipes.recipe import parse_recipe
from edge_contracts.errors import ContractError, EdgewrightError

DETECTING_WAVES = """\
name = "waves"
model = "waves.onnx"
metric = "top1"
labels = ["slow", "medium", "fast", "faster"]
[data]
file = "waves.npz"
[input]
dtype = "float32"
scale = 0.001
[[input.steps]]
step = "crop"
height = 32
width = 3
[[input.steps]]
step = "transpose"
axes = [1, 0]
[[answer]]
step = "softmax"
of = "logits"
name = "p"
[[answer]]
step = "top_k"
of = "p"
name = "best"
k = 1
[[answer]]
step = "labels"
of = "best_classes"
name = "pace"
"""


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """The waves as a logger keeps them: int16, time first, four samples more on each end."""
    (tmp_path / "waves.onnx").write_bytes(onnx_models.conv_classifier().SerializeToString())
    arrays = {}
    for name, count, seed in (("x", 200, 1), ("calib_x", 64, 2)):
        x, y = onnx_models.samples(count, seed=seed)
        arrays[name] = np.pad(np.rint(x * 1000), ((0, 0), (0, 0), (4, 4))).astype(np.int16).transpose(0, 2, 1)
        if name == "x":
            arrays["y"] = y
    write_arrays(tmp_path / "waves.npz", arrays)
    path = tmp_path / "waves.toml"
    path.write_text(DETECTING_WAVES)
    return path


@pytest.mark.timeout(180)
def test_a_bundle_takes_samples_as_the_data_has_them_and_answers_in_words(task: Path, tmp_path: Path) -> None:
    recipes = (
        parse_recipe('summary = "f"\n[[passes]]\npass = "compact"\n', "float"),
        parse_recipe('summary = "d"\n[[passes]]\npass = "dynamic_int8"\n', "small"),
    )
    front = compress(task, "pi-4", out=tmp_path / "bundle", options=Options(max_drop=2.0), recipes=recipes)
    assert front.manifest.schema == 2
    assert front.manifest.inputs[0].sample_shape == (-1, 40, 3)
    report = run_trial(TrialPlan(folder=str(front.bundle)))
    assert report.usable == tuple(variant.id for variant in front.manifest.variants), report
    found = read_task(task)
    with Runtime.open(front.bundle) as runtime:
        answers = [runtime.infer({"x": sample[None]}).outputs for sample in found.x[:50]]
        with pytest.raises(EdgewrightError, match="shape"):
            runtime.infer({"x": found.x[:1, :39]})
    right = [found.file.labels[label] for label in found.y[:50]]
    assert np.mean([answer["pace"][0, 0] == name for answer, name in zip(answers, right, strict=True)]) > 0.8


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("axes = [1, 0]", "axes = [0, 1]", "input.steps"),
        ("axes = [1, 0]", "axes = [0, 2]", "input.steps[1]"),
        ("height = 32", "height = 41", "input.steps[0]"),
        ("scale = 0.001", "scale = 0.001\nshape = [-1, 41, 3]", "input.shape"),
        ('of = "logits"', 'of = "scores"', "answer[0]"),
        ("k = 1", "k = 5", "answer[1]"),
        ('step = "crop"', 'step = "cut"', "input.steps[0]"),
        ('step = "crop"', 'step = "crop"\ntopp = 3', "input.steps[0]"),
    ],
)
def test_steps_that_do_not_fit_are_named_before_anything_is_searched(
    task: Path, old: str, new: str, named: str
) -> None:
    assert old in task.read_text()
    task.write_text(task.read_text().replace(old, new))
    with pytest.raises(ContractError) as caught:
        check_model(
            read_task(task),
            [TensorInfo(name="x", dtype="float32", shape=(-1, 3, 32))],
            [TensorInfo(name="logits", dtype="float32", shape=(-1, 4))],
        )
    assert named in str(caught.value)
    assert "waves.toml" in str(caught.value)
