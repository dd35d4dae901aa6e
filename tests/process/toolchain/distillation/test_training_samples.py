"""The task's samples for recovery: read in the type of the others, checked, and there for every pass that asks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.makers import onnx_models

from edge_bench.task import read_task
from edge_compression.search.build_process import BuildError, BuildPlan, build
from edge_contracts.errors import BundleError, ContractError
from edge_contracts.manifest import Input, SampleMapping

RECIPE = 'summary = "s"\n[[passes]]\npass = "prune"\nkeep = 0.5\nsamples = "training"\n'


def task_with(folder: Path, training: Any) -> Path:
    task = onnx_models.write_task(folder)
    np.savez(folder / "more.npz", x=training)
    task.write_text(task.read_text().replace('file = "waves.npz"', 'file = "waves.npz"\ntrain = "more.npz"'))
    return task


def test_samples_in_a_narrower_type_are_widened(tmp_path: Path) -> None:
    training, _ = onnx_models.samples(20, seed=4)
    task = read_task(task_with(tmp_path, training.astype(np.float16)))
    assert task.training is not None
    assert task.training.dtype == task.x.dtype
    assert task.training.shape == training.shape
    assert read_task(onnx_models.write_task(tmp_path)).training is None


def test_samples_that_do_not_fit_are_an_error_that_names_the_array(tmp_path: Path) -> None:
    training, _ = onnx_models.samples(20, seed=4)
    for wrong in (training[:, :2], training.astype(np.float64), np.full_like(training, np.nan)):
        with pytest.raises(BundleError) as caught:
            read_task(task_with(tmp_path, wrong))
        assert caught.value.subject == "more.npz[x]"
    (tmp_path / "more.npz").unlink()
    with pytest.raises(ContractError) as missing:
        read_task(tmp_path / "waves.toml")
    assert missing.value.subject == "waves.toml data.train"


def test_a_build_gives_them_to_the_passes(tmp_path: Path) -> None:
    onnx_models.write_task(tmp_path)
    training, _ = onnx_models.samples(64, seed=4)
    np.save(tmp_path / "train_x.npy", training)
    shape = (-1, onnx_models.CHANNELS, onnx_models.LENGTH)
    tensor = Input(name="x", dtype="float32", shape=shape, sample=SampleMapping(dtype="float32", offset=0.0, scale=1.0))

    def plan(training: str | None) -> BuildPlan:
        return BuildPlan(
            recipe_id="pruned",
            recipe=RECIPE,
            skip=0,
            model=str(tmp_path / "waves.onnx"),
            calibration=str(tmp_path / "train_x.npy"),
            count=1,
            tensors=(tensor,),
            out=str(tmp_path / "pruned.onnx"),
            memory_limit_mb=2048.0,
            training=training,
        )

    assert build(plan(str(tmp_path / "train_x.npy")), allowed_s=50).changes[0]["weights_kept"] == 0.5
    with pytest.raises(BuildError, match="training samples"):
        build(plan(None), allowed_s=50)
