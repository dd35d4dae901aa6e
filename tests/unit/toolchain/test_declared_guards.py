"""A task's guards: as declared in the bundle, filled from calibration samples, kept by the device that serves it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edge_agent.inference.samples import write_arrays
from edge_agent.ports import TensorInfo
from edge_bench.task import GuardSection, Task, read_task
from edge_compression.guards import check_answers, guarded, objections, output_guard
from edge_contracts.errors import ContractError
from edge_contracts.guards import FeatureGuard, OutputGuard
from edge_contracts.manifest import Input

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "guards.md"

TABLE = """\
name = "table"
model = "table.onnx"
metric = "top1"
[data]
file = "table.npz"
[input]
dtype = "float32"
"""

MODE = """
[[guard.input.features]]
index = 2
name = "mode"
categories = [0, 1]
action = "reject"
"""

OUTPUTS = [TensorInfo(name="logits", dtype="float32", shape=(-1, 4))]


def table(folder: Path, more: str) -> Task:
    """A task of three columns, 0 to 4, -40 to 0 and 0, 1 or 2, whose model nobody runs."""
    count = np.arange(5, dtype=np.float32)
    x = np.stack([count, -10 * count, count % 3], axis=1)
    write_arrays(folder / "table.npz", {"x": x, "y": np.zeros(5, np.int64), "calib_x": x})
    (folder / "table.onnx").touch()
    (folder / "table.toml").write_text(TABLE + more)
    return read_task(folder / "table.toml")


def tensor_of(task: Task) -> Input:
    return Input(name="x", dtype="float32", shape=(-1, 3), sample=task.mapping)


def test_without_a_word_what_is_far_beyond_calibration_is_warned_of(tmp_path: Path) -> None:
    guard = guarded(task := table(tmp_path, ""), tensor_of(task)).guard
    assert (guard.minimum, guard.maximum) == (-51.0, 15.0)
    assert (guard.out_of_range, guard.not_finite, guard.features) == ("warn", "reject", ())


def test_what_is_declared_goes_before_what_was_seen_and_infinity_is_no_bound(tmp_path: Path) -> None:
    task = table(tmp_path, '[guard.input]\nminimum = -inf\nout_of_range = "clip"\nnot_finite = "fallback"\n')
    guard = guarded(task, tensor_of(task)).guard
    assert (guard.minimum, guard.maximum) == (None, 15.0)
    assert (guard.out_of_range, guard.not_finite) == ("clip", "fallback")


def test_a_feature_that_says_nothing_gets_the_range_it_was_seen_in(tmp_path: Path) -> None:
    task = table(tmp_path, '[[guard.input.features]]\nindex = 1\nname = "depth"\naction = "clip"\n' + MODE)
    guard = guarded(task, tensor_of(task)).guard
    depth = FeatureGuard(index=1, name="depth", minimum=-50.0, maximum=10.0, action="clip")
    assert guard.features == (depth, FeatureGuard(index=2, name="mode", categories=(0.0, 1.0), action="reject"))
    assert guard.minimum is guard.maximum is None, "one range of unlike columns means nothing"


def test_what_the_device_would_do_with_the_evaluation_samples_is_said(tmp_path: Path) -> None:
    clipped = '[[guard.input.features]]\nindex = 0\nmaximum = 2.5\naction = "clip"\n'
    task = table(tmp_path, clipped + MODE)
    assert list(objections(guarded(task, tensor_of(task)), task.x)) == [
        "1 of 5 evaluation samples would be rejected on a device, the first because x: mode: 2 is not one of "
        "its categories; they were scored unchanged here",
        "2 of 5 evaluation samples would be clipped on a device, the first because x: feature 0: 3 is above the "
        "maximum 2.5; they were scored unchanged here",
    ]
    assert list(objections(guarded(task := table(tmp_path, ""), tensor_of(task)), task.x + 100)) == []


def test_an_answer_has_the_declared_range_or_that_of_its_kind() -> None:
    assert output_guard(OutputGuard(), "probabilities") == OutputGuard(minimum=-0.05, maximum=1.05)
    assert output_guard(OutputGuard(maximum=9.0), "values") == OutputGuard(maximum=9.0)
    assert output_guard(OutputGuard(minimum=float("-inf")), "probabilities") == OutputGuard(maximum=1.05)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ('[guard.input]\nout_of_range = "refuse"\n', "guard.input.out_of_range"),
        ("[guard.input]\nminimun = 0\n", "minimun"),
        ("[guard.input]\nminimum = nan\n", "guard.input.minimum"),
        ("[guard.input]\nminimum = 20.0\n", "guard.input.minimum"),
        ("[guard.input]\naxis = 2\n" + MODE, "guard.input.axis"),
        (MODE.replace("index = 2", "index = 3"), "guard.input.features[0].index"),
        (MODE.replace('"reject"', '"clip"'), "guard.input.features[0].action"),
        (MODE.replace("[0, 1]", "[0, 0]"), "guard.input.features[0].categories"),
        ("[guard.output]\nminimum = 2.0\nmaximum = 1.0\n", "guard.output.minimum"),
        ('[last_resort]\nkind = "constant"\nvalues = [1.0]\n', "last_resort.values"),
        ('[last_resort]\nkind = "last_value"\nvalues = [1.0, 0.0, 0.0, 0.0]\n', "last_resort.values"),
    ],
)
def test_a_guard_that_means_nothing_is_named_before_anything_is_searched(tmp_path: Path, more: str, named: str) -> None:
    def declared() -> None:
        check_answers(task := table(tmp_path, more), OUTPUTS)
        guarded(task, tensor_of(task))

    with pytest.raises(ContractError) as caught:
        declared()
    assert named in str(caught.value)
    assert "table.toml" in str(caught.value)


@pytest.mark.parametrize("example", re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL))
def test_the_examples_of_the_page_are_what_a_task_may_say(tmp_path: Path, example: str) -> None:
    assert table(tmp_path, example).file.guard != GuardSection()
