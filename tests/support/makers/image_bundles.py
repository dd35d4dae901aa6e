"""A bundle whose model takes images: it answers how red, green and blue one is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnx import TensorProto, helper
from support.makers import bundles

from edge_contracts.manifest import Input, Lineage, Output, SampleMapping, Variant


def make_image_bundle(folder: Path, shape: tuple[int, ...], **sample: Any) -> None:
    """Write a bundle of one model that answers the mean of each of three channels of uint8 samples over 255."""
    channels_first = shape[1] == 3
    axes = [2, 3] if channels_first else [1, 2]
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=axes, keepdims=0)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "m.onnx").write_bytes(model)
    mapping = SampleMapping(**({"dtype": "uint8", "scale": 1 / 255} | sample))
    fields: dict[str, Any] = {
        "name": "color",
        "version": "1.0.0",
        "created": "2026-11-22T10:00:00Z",
        "labels": ("red", "green", "blue"),
        "inputs": (Input(name="x", dtype="float32", shape=shape, sample=mapping),),
        "outputs": (Output(name="y", dtype="float32", shape=(-1, 3), kind="probabilities"),),
        "variants": (Variant(id="m", file="models/m.onnx", format="onnx", size=len(model)),),
        "lineage": Lineage(source_sha256="0" * 64),
    }
    bundles.seal(folder, fields)
