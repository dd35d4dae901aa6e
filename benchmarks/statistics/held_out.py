"""Bundles of a corpus and samples that had no part in them: each task's samples are cut in two at random, `edgewright
compress` is given one half, and the other half is what the benchmarks of certainty and drift judge by.

Calibration samples that fell into the other half are taken off. What is measured is in `certainty.py` and `drift.py`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle import Bundle, open_bundle
from edge_agent.engines.registry import engine_for
from edge_agent.inference.sample_runs import predict
from edge_agent.inference.samples import read_arrays, write_arrays
from edge_agent.ports import EngineSettings
from edge_contracts.manifest import Variant

Array = NDArray[Any]

SEED = 0
"""Of the cut: the same halves in every run."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A bundle made of one half, and the other half: samples `x` as they are stored, with the truth `y`; the last
    `fresh` of them are of the training file."""

    task: str
    bundle: Bundle
    x: Array
    y: Array
    fresh: int = 0

    def answers(self, variant: Variant, x: Array) -> Array:
        """Return the variant's first output for samples, by the agent's own engine, one at a time."""
        session = engine_for(variant.format).load(self.bundle.model_path(variant), EngineSettings())
        return predict(session, self.bundle.manifest, [x])[0]


def prepare(task: Path, work: Path, *, more: Sequence[str], fresh: bool = False) -> HeldOut:
    """Return the task's bundle and its other half; a bundle that is in `work` already is taken as it is.

    `more` are words for `edgewright compress`. With `fresh` the samples of the task's training file are held out as
    well: right only where the model was not trained on them. Raises SystemExit with what `compress` said last.
    """
    settings = tomllib.loads(task.read_text(encoding="utf-8"))
    arrays = read_arrays(task.parent / settings["data"]["file"], what=task.stem)
    x, y = arrays["x"], arrays["y"]
    order = np.random.default_rng(SEED).permutation(len(x))
    told, held = np.sort(order[: len(x) // 2]), np.sort(order[len(x) // 2 :])
    folder = work / task.stem
    if not (folder / "bundle" / "manifest.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        calibration = _without(arrays["calib_x"], x[held])
        write_arrays(folder / "data.npz", {"x": x[told], "y": y[told], "calib_x": calibration})
        (folder / "task.toml").write_text(_task_text(settings), encoding="utf-8")
        shutil.copyfile(task.parent / settings["model"], folder / settings["model"])
        _compress(folder, more)
    x, y, bundle = x[held], y[held], open_bundle(folder / "bundle")
    if not fresh:
        return HeldOut(task=task.stem, bundle=bundle, x=x, y=y)
    train = read_arrays(task.parent / settings["data"]["train"], what=f"{task.stem} train")
    x, y = np.concatenate([x, train["x"]]), np.concatenate([y, train["y"]])
    return HeldOut(task=task.stem, bundle=bundle, x=x, y=y, fresh=len(train["x"]))


def _without(x: Array, others: Array) -> Array:
    known = {one.tobytes() for one in others}
    return x[[one.tobytes() not in known for one in x]]


def _task_text(settings: dict[str, Any]) -> str:
    lines = [f"{key} = {_toml(settings[key])}" for key in ("name", "model", "metric")]
    lines += ["[data]", 'file = "data.npz"', "[input]"]
    lines += [f"{key} = {_toml(value)}" for key, value in settings["input"].items()]
    return "\n".join(lines) + "\n"


def _toml(value: str | float) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _compress(folder: Path, more: Sequence[str]) -> None:
    words = ["compress", str(folder / "task.toml"), "--profile", "x86-gateway", "--out", str(folder / "bundle"), *more]
    done = subprocess.run([sys.executable, "-m", "edgewright.cli", *words], capture_output=True, text=True)
    if done.returncode not in (0, 4):  # 4: nothing was gained, the bundle holds the original
        raise SystemExit(f"{folder.name}: {done.stderr[-1000:]}")
