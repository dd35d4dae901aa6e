"""Releases that a device must survive: bundles made from a good one, validly formed, each wrong in one way.

They stand for real accidents: a build that mixed up its labels, a graph that works on every sample anybody tried and
takes all memory on one that nobody did.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_agent.bundle import file_entry
from edge_agent.engines.registry import engine_for
from edge_agent.inference.samples import read_arrays, to_model, write_arrays
from edge_agent.ports import EngineSettings
from edge_contracts.manifest import MANIFEST_NAME, Manifest, manifest_bytes, parse_manifest

GLITCH = 1000.0
"""A sensor reading no sample has: the watch's range ends at 160 m/s² and 35 rad/s."""

EXPLOSION_ELEMENTS = 3_000_000_000
"""float32 elements the exploding graph asks for on a glitch: 12 GB."""

ModelChange = Callable[[onnx.ModelProto], None]


def derive(bundle: Path, out: Path, version: str, change: ModelChange) -> Manifest:
    """Copy `bundle` to `out` as `version` with every ONNX variant changed, its golden outputs recomputed from the
    changed models, and its probe set and claimed scores left alone: what a faulty but honest build would sign."""
    shutil.copytree(bundle, out)
    manifest = parse_manifest((out / MANIFEST_NAME).read_bytes())
    for variant in manifest.variants:
        model = onnx.load(out / variant.file)
        change(model)
        onnx.checker.check_model(model)
        onnx.save(model, out / variant.file)
    _renew_golden(manifest, out)
    files = tuple(file_entry(out / entry.path, out, manifest.chunk_size) for entry in manifest.files)
    variants = tuple(
        # Thresholds and references belong to the bytes they were made with.
        msgspec.structs.replace(v, size=(out / v.file).stat().st_size, conformal=(), reference=None)
        for v in manifest.variants
    )
    changed = msgspec.structs.replace(manifest, version=version, files=files, variants=variants)
    (out / MANIFEST_NAME).write_bytes(manifest_bytes(changed))
    return changed


def unchanged(_model: onnx.ModelProto) -> None:
    """A release whose models are as they were."""


def mix_up_labels(model: onnx.ModelProto) -> None:
    """Rotate the class scores by one: every right answer becomes a wrong one."""
    inner = _detach_output(model)
    output = model.graph.output[0]
    classes = output.type.tensor_type.shape.dim[1].dim_value
    rotated = np.roll(np.arange(classes, dtype=np.int64), 1)
    model.graph.initializer.append(numpy_helper.from_array(rotated, "rotated"))
    model.graph.node.append(helper.make_node("Gather", [inner, "rotated"], [output.name], axis=1))


def explode_on_glitch(model: onnx.ModelProto) -> None:
    """Add a branch whose tensor is one element on every ordinary sample and 12 GB when a reading reaches half of
    `GLITCH`; its value never changes the answer."""
    inner = _detach_output(model)
    graph = model.graph
    constants = {
        "limit": np.float32(GLITCH / 2),
        "huge": np.array([EXPLOSION_ELEMENTS], np.int64),
        "one": np.array([1], np.int64),
        "nothing": np.float32(0),
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
    graph.node.extend(
        [
            helper.make_node("ReduceMax", [graph.input[0].name], ["peak"], keepdims=0),
            helper.make_node("Greater", ["peak", "limit"], ["glitch"]),
            helper.make_node("Cast", ["glitch"], ["switch"], to=TensorProto.INT64),
            helper.make_node("Mul", ["switch", "huge"], ["extra"]),
            helper.make_node("Add", ["extra", "one"], ["count"]),
            helper.make_node("ConstantOfShape", ["count"], ["scratch"], value=zero),
            helper.make_node("ReduceSum", ["scratch"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "nothing"], ["silence"]),
            helper.make_node("Add", [inner, "silence"], [graph.output[0].name]),
        ]
    )


def _detach_output(model: onnx.ModelProto) -> str:
    """Rename the tensor that is the model's output and return its new name, so that nodes can follow it."""
    name = model.graph.output[0].name
    inner = f"{name}_before"
    for node in model.graph.node:
        node.output[:] = [inner if output == name else output for output in node.output]
        node.input[:] = [inner if value == name else value for value in node.input]
    return inner


def _renew_golden(manifest: Manifest, folder: Path) -> None:
    if manifest.golden is None:
        return
    path = folder / manifest.golden.file
    arrays = dict(read_arrays(path, what="golden"))
    fed = to_model(arrays["input_0"], manifest.inputs[0])
    for variant in manifest.variants:
        session = engine_for(variant.format).load(folder / variant.file, EngineSettings())
        outputs = session.run({manifest.inputs[0].name: fed})
        for index, output in enumerate(manifest.outputs):
            arrays[f"{variant.id}/output_{index}"] = outputs[output.name]
        session.close()
    write_arrays(path, arrays)
