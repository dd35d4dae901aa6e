"""A small real bundle of a model that remembers: y = gain * (state after the step), state = state / 2 + x.

"x" float32 [batch, 2] is sampled, "gain" float32 [] a constant 3, "state" float32 [1, 2] fed back from "state_out".
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_agent.bundle import Bundle, file_entry, open_bundle
from edge_contracts.manifest import (
    MANIFEST_NAME,
    STATE_SCHEMA,
    Input,
    Lineage,
    Manifest,
    Output,
    SampleMapping,
    Variant,
    manifest_bytes,
)

GAIN = 3.0


def remembering_model(gain_shift: float = 0.0) -> bytes:
    """Return the model; `gain_shift` is added to the gain, for another file that answers differently."""
    nodes = [
        helper.make_node("Mul", ["state", "half"], ["faded"]),
        helper.make_node("Add", ["faded", "x"], ["state_out"]),
        helper.make_node("Add", ["gain", "shift"], ["used"]),
        helper.make_node("Mul", ["state_out", "used"], ["y"]),
    ]
    shapes = {"x": ["N", 2], "gain": [], "state": [1, 2]}
    graph = helper.make_graph(
        nodes,
        "remembering",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("y", "state_out")],
        [numpy_helper.from_array(np.float32(value), name) for name, value in (("half", 0.5), ("shift", gain_shift))],
    )
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    onnx.checker.check_model(made)
    return made


def make_stream_bundle(folder: Path, version: str = "1.0.0", name: str = "remembering", shift: float = 0.0) -> Bundle:
    """Write the bundle and return it, verified."""
    (folder / "models").mkdir(parents=True)
    file = folder / "models" / "fp32.onnx"
    file.write_bytes(remembering_model(shift))
    same = SampleMapping(dtype="float32")
    manifest = Manifest(
        schema=STATE_SCHEMA,
        name=name,
        version=version,
        created="2026-12-01T00:00:00Z",
        inputs=(
            Input(name="x", dtype="float32", shape=(-1, 2), sample=same),
            Input(name="gain", dtype="float32", shape=(), sample=same, constant=(GAIN,)),
            Input(name="state", dtype="float32", shape=(1, 2), sample=same, feedback="state_out"),
        ),
        outputs=(
            Output(name="y", dtype="float32", shape=(1, 2)),
            Output(name="state_out", dtype="float32", shape=(1, 2)),
        ),
        variants=(Variant(id="fp32", file="models/fp32.onnx", format="onnx", size=file.stat().st_size),),
        lineage=Lineage(source_sha256=hashlib.sha256(file.read_bytes()).hexdigest()),
        files=(file_entry(file, folder),),
    )
    (folder / MANIFEST_NAME).write_bytes(manifest_bytes(manifest))
    return open_bundle(folder)


def frames(count: int, seed: int = 5) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return steps of one stream, float32 [count, 1, 2]."""
    return np.random.default_rng(seed).uniform(-1, 1, (count, 1, 2)).astype(np.float32)


def right_answers(
    steps: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return what the model answers to a stream from its start, float32 [count, 1, 2]."""
    state, found = np.zeros((1, 2), np.float32), []
    for step in steps:
        state = np.float32(0.5) * state + step
        found.append(np.float32(GAIN) * state)
    return np.stack(found)
