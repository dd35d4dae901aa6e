"""Bundles as users have them: made by `edgewright compress` of a task, with thresholds, guards, samples and ladder."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.inference.samples import to_model
from edge_contracts.manifest import Manifest, parse_manifest

DEMO_TASK = Path(str(resources.files("edgewright.demo") / "data" / "watch_har.toml"))
"""The task that the demo and the quick start compress."""


class Compressed(NamedTuple):
    """A bundle's folder, its manifest, the file of the variant that answers first, and samples from its probe set, each
    as one request's only tensor, in the model's own dtype."""

    folder: Path
    manifest: Manifest
    model: Path
    samples: list[NDArray[Any]]


def compressed_bundle(task: Path, folder: Path, *, count: int = 16, budget: str | None = None) -> Compressed:
    """Compress a task of one input into `folder`, within `budget` if one is given; or open a bundle that is there."""
    if task.is_dir():
        folder = task
    else:
        words = ["compress", str(task), "--profile", "x86-gateway", "--max-drop", "1.0", "--out", str(folder)]
        words += [] if budget is None else ["--budget", budget]
        done = subprocess.run([sys.executable, "-m", "edgewright.cli", *words], stdout=subprocess.DEVNULL)
        if done.returncode not in (0, 4):  # 4: nothing was gained, the bundle holds the original
            done.check_returncode()
    manifest = parse_manifest((folder / "manifest.json").read_bytes())
    probe = json.loads((folder / "manifest.json").read_bytes())["probe"]["file"]
    rows = np.load(folder / probe, allow_pickle=False)["input_0"][:count]
    samples = [to_model(row[None], manifest.inputs[0]) for row in rows]
    return Compressed(folder, manifest, folder / manifest.variants[0].file, samples)
