"""A bundle of one model as it is, for benchmarks of the agent: no ladder, no samples, guards at their defaults."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from edge_agent.bundle import file_entry
from edge_agent.engines.registry import engine_for
from edge_agent.ports import EngineSettings
from edge_contracts.manifest import (
    MANIFEST_NAME,
    Input,
    Lineage,
    Manifest,
    Output,
    SampleMapping,
    Variant,
    manifest_bytes,
)


def make_plain_bundle(model: Path, folder: Path) -> Path:
    """Write a bundle whose only variant is `model` and which takes the model's own dtypes; return its folder."""
    folder.mkdir(parents=True)
    file = folder / model.name
    shutil.copyfile(model, file)
    session = engine_for("onnx").load(file, EngineSettings())
    inputs = tuple(
        Input(name=info.name, dtype=info.dtype, shape=info.shape, sample=SampleMapping(dtype=info.dtype))
        for info in session.inputs
    )
    outputs = tuple(
        Output(name=info.name, dtype=info.dtype, shape=info.shape, kind="values") for info in session.outputs
    )
    manifest = Manifest(
        name=model.stem.replace("_", "-"),
        version="1.0.0",
        created="2026-01-01T00:00:00Z",
        metric="top1",
        inputs=inputs,
        outputs=outputs,
        variants=(Variant(id="float", file=file.name, format="onnx", size=file.stat().st_size, score=1.0),),
        files=(file_entry(file, folder),),
        lineage=Lineage(source_sha256=hashlib.sha256(file.read_bytes()).hexdigest()),
    )
    (folder / MANIFEST_NAME).write_bytes(manifest_bytes(manifest))
    return folder
