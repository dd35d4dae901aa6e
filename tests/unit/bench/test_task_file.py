"""Task files: what is accepted, and that every mistake is an error naming file and field."""

from pathlib import Path

import numpy as np
import pytest
from support.makers import onnx_models

from edge_agent.ports import TensorInfo
from edge_bench.task import check_model, read_task
from edge_contracts.errors import EdgewrightError

INPUT = TensorInfo(name="x", dtype="float32", shape=(-1, 3, 32))
OUTPUT = TensorInfo(name="logits", dtype="float32", shape=(-1, 4))


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return onnx_models.write_task(tmp_path)


def test_a_good_task_is_read_and_fits_its_model(task: Path) -> None:
    found = read_task(task)
    check_model(found, [INPUT], [OUTPUT])
    assert found.x.shape == (300, 3, 32)
    assert found.overlap == 0
    assert found.mapping.dtype == "float32"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('name = "waves"', 'name = "no spaces"', "task.name"),
        ('metric = "top1"', 'metrik = "top1"', "metrik"),
        ('metric = "top1"', 'metric = "bleu"', "metric"),
        ('model = "waves.onnx"', 'model = "absent.onnx"', "model"),
        ('model = "waves.onnx"', 'model = "waves.pt"', "model"),
        ('file = "waves.npz"', 'file = "absent.npz"', "data.file"),
        ('file = "waves.npz"', "file = 3", "task.data.file"),
        ('dtype = "float32"', 'dtype = "float12"', "task.input.dtype"),
        ("scale = 1.0", "scale = 0.0", "input.scale"),
        ("[input]", "[input", "TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named(task: Path, old: str, new: str, named: str) -> None:
    task.write_text(task.read_text().replace(old, new))
    with pytest.raises(EdgewrightError) as caught:
        read_task(task)
    assert named in str(caught.value)
    assert "waves.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"y": None}, "waves.npz[y]"),
        ({"y": np.zeros(7, np.int64)}, "waves.npz[y]"),
        ({"calib_x": np.zeros((4, 3, 31), np.float32)}, "waves.npz[calib_x]"),
        ({"calib_x": np.full((4, 3, 32), np.nan, np.float32)}, "waves.npz[calib_x]"),
        ({"x": np.zeros((0, 3, 32), np.float32)}, "waves.npz[x]"),
        ({"slices": np.zeros(2)}, "waves.npz[slices]"),
        ({"x": np.array([{}] * 300, dtype=object)}, "waves.npz"),
    ],
)
def test_a_mistake_in_the_data_is_named(task: Path, changed: dict[str, object], named: str) -> None:
    data = task.with_suffix(".npz")
    with np.load(data) as arrays:
        content = {**arrays, **changed}
    np.savez(data, **{name: values for name, values in content.items() if values is not None})  # type: ignore[arg-type]
    with pytest.raises(EdgewrightError) as caught:
        read_task(task)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "outputs", "named"),
    [
        ([INPUT, INPUT], [OUTPUT], "2 inputs"),
        ([TensorInfo(name="x", dtype="int8", shape=(-1, 3, 32))], [OUTPUT], "input.dtype"),
        ([TensorInfo(name="x", dtype="float32", shape=(-1, 3, 33))], [OUTPUT], "waves.npz[x]"),
        ([TensorInfo(name="x", dtype="float32", shape=(8, 3, 32))], [OUTPUT], "batch is fixed at 8"),
        ([INPUT], [TensorInfo(name="logits", dtype="float32", shape=(-1, 3))], "waves.npz[y]"),
    ],
)
def test_a_model_that_does_not_fit_is_said_so(
    task: Path, inputs: list[TensorInfo], outputs: list[TensorInfo], named: str
) -> None:
    with pytest.raises(EdgewrightError) as caught:
        check_model(read_task(task), inputs, outputs)
    assert named in str(caught.value)


def test_calibration_samples_that_are_evaluation_samples_are_counted(task: Path) -> None:
    data = task.with_suffix(".npz")
    with np.load(data) as arrays:
        content = dict(arrays)
    content["calib_x"] = np.concatenate([content["calib_x"], content["x"][:10]])
    np.savez(data, **content)
    assert read_task(task).overlap == 10
