"""Surfaces of TOML files: what a person wrote, or was sent by somebody. See `fuzz_surfaces`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from contract_examples import PROFILE
from fuzz_forms import TOML
from fuzz_surfaces import Run, Surface

from edge_agent.config import load_config
from edge_agent.profiles import load_profile
from edge_bench.task import read_task
from edge_compression.recipe import load_recipe
from edge_contracts.errors import BundleError, ContractError, OperatorError
from edge_fleet.folder import SETTINGS_NAME, read_settings

ROOT = Path(__file__).parents[1]


def settings(name: str, file: str, read: Callable[[Path], object], *seeds: bytes) -> Surface:
    """Return the surface of a TOML file."""

    def start(folder: Path) -> Run:
        path = folder / file

        def run(data: bytes) -> None:
            path.write_bytes(data)
            read(path)

        return run

    refusals = (ContractError, OperatorError, BundleError)
    return Surface(name=name, open=start, seeds=lambda: list(seeds), refusals=refusals, form=TOML)


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

_FLEET = b"""tenant = "acme"
[expiry_days]
root = 365.0
timestamp = 1.0
"""

SETTINGS = (
    settings("agent-config", "agent.toml", load_config, *_files("firmware_configs/agent.toml")),
    settings("profile", "p.toml", load_profile, *_files("firmware_configs/profiles/pi-4.toml"), _toml_of(PROFILE)),
    settings("task", "task.toml", read_task, _TASK),
    settings("recipe", "recipe.toml", load_recipe, *_files("compression/recipes/*.toml")),
    settings("fleet-settings", SETTINGS_NAME, lambda path: read_settings(path.parent), _FLEET),
)
