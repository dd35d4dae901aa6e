"""Surfaces of TOML files: what a person wrote, or was sent by somebody. See `fuzz_surfaces`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from campaigns.fuzzing.forms import TOML
from campaigns.fuzzing.surfaces import Run, Surface
from support.makers.contract_examples import PROFILE

from edge_agent.config.agent_toml import load_config
from edge_agent.config.profiles import load_profile
from edge_agent.inference.samples import write_arrays
from edge_agent.ports import TensorInfo
from edge_bench.task import check_model, read_task
from edge_compression.guards import check_answers, guarded, objections
from edge_compression.recipes.recipe import load_recipe
from edge_contracts.errors import BundleError, ContractError, OperatorError
from edge_contracts.manifest import Input
from edge_fleet.signing.workspace import SETTINGS_NAME, read_settings

ROOT = Path(__file__).parents[3]
REFUSALS = (ContractError, OperatorError, BundleError)


def settings(name: str, file: str, read: Callable[[Path], object], *seeds: bytes) -> Surface:
    """Return the surface of a TOML file."""

    def start(folder: Path) -> Run:
        path = folder / file

        def run(data: bytes) -> None:
            path.write_bytes(data)
            read(path)

        return run

    return Surface(name=name, open=start, seeds=lambda: list(seeds), refusals=REFUSALS, form=TOML)


def _toml_of(value: Any) -> bytes:
    return TOML.make(msgspec.to_builtins(value))


def _files(pattern: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(ROOT.glob(pattern))]


_TASK = b"""name = "har"
model = "har.onnx"
metric = "top1"
labels = ["walk", "run"]
license = "BSD-3-Clause"
[data]
file = "har.npz"
train = "more.npz"
slices = "slices"
[input]
dtype = "float32"
scale = 1.0
offset = 0.5
"""

_GUARDED = (
    _TASK.replace(b"har.onnx", b"table.onnx").replace(b"har.npz", b"table.npz").replace(b'train = "more.npz"\n', b"")
    + b"""[guard.input]
axis = -1
minimum = -inf
maximum = 40.0
out_of_range = "clip"
not_finite = "fallback"
[[guard.input.features]]
index = 0
name = "depth"
minimum = 1.5
action = "clip"
[[guard.input.features]]
index = 2
categories = [0, 1, 2.5]
action = "reject"
[guard.output]
maximum = 9.0
[last_resort]
kind = "constant"
values = [0.0, 1.0]
fresh_s = 2.0
"""
)


def _keeps_its_guards(folder: Path) -> Run:
    """What a task declares of its samples and answers, filled from the samples and kept on each of them."""
    x = np.arange(15, dtype=np.float32).reshape(5, 3)
    write_arrays(folder / "table.npz", {"x": x, "y": np.zeros(5, np.int64), "calib_x": x})
    (folder / "table.onnx").touch()
    info = TensorInfo(name="x", dtype="float32", shape=(-1, 3))
    outputs = [TensorInfo(name="y", dtype="float32", shape=(-1, 2))]

    def run(data: bytes) -> None:
        (folder / "table.toml").write_bytes(data)
        task = read_task(folder / "table.toml")
        check_model(task, [info], outputs)
        check_answers(task, outputs)
        tensor = guarded(task, Input(name="x", dtype="float32", shape=(-1, 3), sample=task.mapping))
        list(objections(tensor, task.x))

    return run


_FLEET = b"""tenant = "acme"
[expiry_days]
root = 365.0
timestamp = 1.0
"""

SETTINGS = (
    settings("agent-config", "agent.toml", load_config, *_files("firmware_configs/agent.toml")),
    settings("profile", "p.toml", load_profile, *_files("firmware_configs/profiles/pi-4.toml"), _toml_of(PROFILE)),
    settings("task", "task.toml", read_task, _TASK),
    Surface(name="task-guards", open=_keeps_its_guards, seeds=lambda: [_GUARDED], refusals=REFUSALS, form=TOML),
    settings("recipe", "recipe.toml", load_recipe, *_files("compression/recipes/*.toml")),
    settings("fleet-settings", SETTINGS_NAME, lambda path: read_settings(path.parent), _FLEET),
)
