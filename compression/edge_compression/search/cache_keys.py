"""What makes two builds, or two searches, the same: everything their results depend on, as one digest each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from edge_agent.bundle import hash_file
from edge_bench.environment import versions
from edge_bench.task import Task
from edge_compression.options import Options
from edge_compression.recipes.recipe import Recipe
from edge_contracts import __version__
from edge_contracts.codec import encode
from edge_contracts.profile import DeviceProfile

TOOLS = ("numpy", "onnx", "onnxruntime", "onnxslim", "ai-edge-litert", "ai-edge-quantizer", "torch")


def build_identity(task: Task, calibration: int) -> str:
    """Return the digest of what a model is built from besides its recipe: files, samples and tools."""
    section = task.file.data
    train = None if isinstance(section, str) else section.train
    training = task.path.parent / train if train else None
    return _digest(
        {
            "edgewright": __version__,
            "model": hash_file(task.model),
            "data": samples_digest(task),
            "training": hash_file(training) if training is not None else None,
            "input": task.file.input or task.file.inputs,
            "calibration": calibration,
            "tools": versions(TOOLS),
        }
    )


def study_identity(source: str, recipes: Sequence[Recipe], options: Options, profile: DeviceProfile) -> str:
    """Return the name of the study that judges these recipes of this source with these options. Limits that only the
    ladder looks at are not part of it: another search with other limits goes on from what is known."""
    asked = {
        "source": source,
        "recipes": [[recipe.id, recipe.text] for recipe in recipes],
        "limit": [str(options.max_drop), options.confidence],
        "samples": options.evaluation,
        "ruled out by others": options.max_latency_ms is None and options.max_memory_mb is None,
        "profile": [profile.model.threads, profile.model.reduce_range],
    }
    return f"edgewright-{_digest(asked)[:24]}"


def samples_digest(task: Task) -> str:
    """Return the digest of the file with the samples, or of the samples where they come from a folder or a function."""
    if task.data.is_file() and task.data.suffix == ".npz":
        return hash_file(task.data)
    found = hashlib.sha256()
    for one in task.sampled:
        for array in (one.samples, one.calibration):
            assert array is not None
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _digest(value: object) -> str:
    return hashlib.sha256(encode(value)).hexdigest()
