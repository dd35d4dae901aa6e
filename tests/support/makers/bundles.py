"""Small real bundles for tests: ONNX models made here, golden and probe sets computed by the agent's own engines.

    make_bundle(folder)                          a good linear classifier with two variants, "fp32" and "small"
    make_bundle(folder, version="1.1.0", models=[("fp32", wrong_model())], min_score=0.9)    valid, but wrong answers
    make_bundle(folder, models=[("fp32", exploding_model())])       asks for max(x) floats of scratch memory
    make_bundle(folder, models=[("fp32", looping_model())])         counts to max(x) and never ends for large inputs
    make_bundle(folder, models=[("fp32", nan_model())])             answers NaN where x[0, 0] > 100
    crash_model()                                bytes no engine loads

Every model takes "x" float32 [batch, 4] and answers "y" float32 [batch, 3] (logits); `samples(n)` makes inputs and
the right classes. All of them answer small inputs (as in `samples`) like the good one, so that they pass a trial,
except the wrong one. The returned Bundle is opened and verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_agent.bundle import Bundle, file_entry, open_bundle
from edge_agent.engines.registry import engine_for
from edge_agent.inference.sample_runs import predict
from edge_agent.inference.samples import write_arrays
from edge_agent.ports import Array, EngineSettings
from edge_contracts.manifest import (
    MANIFEST_NAME,
    Input,
    Lineage,
    Manifest,
    Output,
    SampleMapping,
    SampleSet,
    Variant,
    manifest_bytes,
    schema_for,
)

FEATURES, CLASSES = 4, 3
WEIGHTS = np.array([[3, -1, -2], [-2, 3, -1], [-1, -2, 3], [1, 1, -2]], dtype=np.float32)


def samples(count: int, seed: int = 7) -> tuple[Array, Array]:
    """Return inputs float32 [count, 4] between -1 and 1 and their right classes int64 [count]."""
    x = np.random.default_rng(seed).uniform(-1, 1, (count, FEATURES)).astype(np.float32)
    return x, (x @ WEIGHTS).argmax(axis=1)


def linear_model(weights: Array = WEIGHTS) -> bytes:
    """Return y = x @ weights."""
    return _model([helper.make_node("MatMul", ["x", "w"], ["y"])], w=weights)


def wrong_model() -> bytes:
    """Return a model that is valid and confidently wrong: its classes are shifted by one."""
    return linear_model(np.roll(WEIGHTS, 1, axis=1))


def scaled_model(scale: float) -> bytes:
    """Return the same classes with logits `scale` times as large: another model with the same quality."""
    return linear_model((WEIGHTS * scale).astype(np.float32))


def nan_model(over: float = 100.0) -> bytes:
    """Return the good model, answering NaN for a batch whose largest number is over `over`."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["good"]),
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Sub", ["limit", "top"], ["room"]),
        helper.make_node("Sqrt", ["room"], ["root"]),
        helper.make_node("Mul", ["root", "zero"], ["poison"]),
        helper.make_node("Add", ["good", "poison"], ["y"]),
    ]
    return _model(nodes, w=WEIGHTS, limit=np.float32(over), zero=np.float32(0))


def exploding_model() -> bytes:
    """Return the good model, which also fills max(x) floats of scratch memory: 1e9 in x asks for 4 GB."""
    nodes = [
        *_count_from_largest("size"),
        helper.make_node("Unsqueeze", ["size", "axis"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["scratch"]),
        helper.make_node("ReduceSum", ["scratch"], ["zero"], keepdims=0),
        helper.make_node("MatMul", ["x", "w"], ["good"]),
        helper.make_node("Add", ["good", "zero"], ["y"]),
    ]
    return _model(nodes, w=WEIGHTS, axis=np.array([0], np.int64))


def wide_model(width: int = 16_384) -> bytes:
    """Return the good model, which also fills `width` floats of scratch memory for each row."""
    nodes = [
        helper.make_node("MatMul", ["x", "wide"], ["scratch"]),
        helper.make_node("ReduceSum", ["scratch"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "nothing"], ["zero"]),
        helper.make_node("MatMul", ["x", "w"], ["good"]),
        helper.make_node("Add", ["good", "zero"], ["y"]),
    ]
    return _model(nodes, w=WEIGHTS, wide=np.ones((4, width), np.float32), nothing=np.float32(0))


def pairs_model() -> bytes:
    """Return the good model, which also compares each row with each: its memory grows with the square of the batch."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["columns"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "columns"], ["pairs"]),
        helper.make_node("ReduceSum", ["pairs"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "nothing"], ["zero"]),
        helper.make_node("MatMul", ["x", "w"], ["good"]),
        helper.make_node("Add", ["good", "zero"], ["y"]),
    ]
    return _model(nodes, w=WEIGHTS, nothing=np.float32(0))


def looping_model() -> bytes:
    """Return the good model, which counts to max(x) before it answers: 1e15 in x hangs it for good."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["sum"], ["sum_out"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", TensorProto.FLOAT, []),
        ],
    )
    nodes = [
        *_count_from_largest("times"),
        helper.make_node("Loop", ["times", "", "zero"], ["sum_end"], body=body),
        helper.make_node("MatMul", ["x", "w"], ["good"]),
        helper.make_node("Add", ["good", "sum_end"], ["y"]),
    ]
    return _model(nodes, w=WEIGHTS, zero=np.float32(0))


def crash_model() -> bytes:
    """Return bytes that are no model."""
    return b"\x08\x09 this is not an ONNX file"


def make_bundle(
    folder: Path,
    *,
    name: str = "linear",
    version: str = "1.0.0",
    models: Sequence[tuple[str, bytes]] | None = None,
    min_score: float | None = 0.9,
    padding: int = 0,
    variant: dict[str, Any] | None = None,
    **manifest: Any,
) -> Bundle:
    """Write a bundle and return it, opened and verified.

    `models`: variant ids and model bytes in ladder order; default "fp32" and "small", of which "small" is written down
    as the faster and smaller one. `padding` adds a file of that
    many incompressible bytes, for tests of transport. `variant` and `manifest` override fields of every Variant and
    of the Manifest. Golden outputs are those of the good model for a model that does not load.
    """
    models = models or [("fp32", linear_model()), ("small", scaled_model(0.5))]
    (folder / "models").mkdir(parents=True, exist_ok=True)
    for variant_id, data in models:
        (folder / "models" / f"{variant_id}.onnx").write_bytes(data)
    if padding:
        (folder / "padding.bin").write_bytes(np.random.default_rng(1).bytes(padding))
    fields = _fields(name, version, models, min_score, variant or {}) | manifest
    _write_samples(folder, Manifest(**fields, files=(file_entry(folder / "models" / f"{models[0][0]}.onnx", folder),)))
    return seal(folder, fields)


def seal(folder: Path, fields: dict[str, Any]) -> Bundle:
    """Write the manifest over all files now in `folder` and return the bundle, opened and verified."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_NAME)
    schema = schema_for(fields["inputs"], fields.get("answer", ()))
    chosen = Manifest(**fields | {"schema": schema, "files": tuple(file_entry(path, folder) for path in paths)})
    (folder / MANIFEST_NAME).write_bytes(manifest_bytes(chosen))
    return open_bundle(folder)


def fields_of(bundle: Bundle) -> dict[str, Any]:
    """Return a bundle's manifest fields, to change some and `seal` the folder again."""
    return {field: getattr(bundle.manifest, field) for field in bundle.manifest.__struct_fields__}


def _fields(
    name: str, version: str, models: Sequence[tuple[str, bytes]], min_score: float | None, variant: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "created": "2026-11-01T00:00:00Z",
        "metric": "top1",
        "inputs": (Input(name="x", dtype="float32", shape=(-1, FEATURES), sample=SampleMapping(dtype="float32")),),
        "outputs": (Output(name="y", dtype="float32", shape=(-1, CLASSES), kind="logits"),),
        "variants": tuple(
            Variant(
                **{
                    "id": variant_id,
                    "file": f"models/{variant_id}.onnx",
                    "format": "onnx",
                    "size": len(data),
                    "score": 1.0,
                    "min_score": min_score,
                    "latency_ms": 0.01 if variant_id == "small" else 0.02,
                    "peak_memory_mb": 1.0 if variant_id == "small" else 2.0,
                }
                | variant
            )
            for variant_id, data in models
        ),
        "golden": SampleSet(file="golden.npz", samples=4),
        "probe": SampleSet(file="probe.npz", samples=32),
        "lineage": Lineage(source_sha256=hashlib.sha256(models[0][1]).hexdigest()),
    }


def _write_samples(folder: Path, manifest: Manifest) -> None:
    x, _ = samples(4, seed=1)
    golden: dict[str, Array] = {"input_0": x}
    for variant in manifest.variants:
        model = folder / variant.file
        try:
            session = engine_for(variant.format).load(model, EngineSettings())
            golden[f"{variant.id}/output_0"] = predict(session, manifest, [x])[0]
        except Exception:
            golden[f"{variant.id}/output_0"] = x @ WEIGHTS
    write_arrays(folder / "golden.npz", golden)
    x, y = samples(32, seed=2)
    write_arrays(folder / "probe.npz", {"input_0": x, "y": y})


def _count_from_largest(name: str) -> list[onnx.NodeProto]:
    """Nodes for int(max(max(x), 1)) under `name`."""
    return [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Constant", [], ["one"], value=numpy_helper.from_array(np.float32(1))),
        helper.make_node("Max", ["largest", "one"], ["at_least_one"]),
        helper.make_node("Cast", ["at_least_one"], [name], to=TensorProto.INT64),
    ]


def _model(nodes: list[onnx.NodeProto], **constants: Any) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data
