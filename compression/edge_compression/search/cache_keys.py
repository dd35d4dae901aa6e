"""What makes two builds, or two searches, the same: everything their results depend on, as one digest each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

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
    training = task.path.parent / task.file.data.train if task.file.data.train else None
    return _digest(
        {
            "edgewright": __version__,
            "model": hash_file(task.model),
            "data": hash_file(task.data),
            "training": hash_file(training) if training is not None else None,
            "input": task.file.input,
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
        "limit": [options.max_drop, options.confidence],
        "samples": options.evaluation,
        "profile": [profile.model.threads, profile.model.reduce_range],
    }
    return f"edgewright-{_digest(asked)[:24]}"


def _digest(value: object) -> str:
    return hashlib.sha256(encode(value)).hexdigest()
