"""Small pipelines for tests, composed of real bundles by the command's own code.

    make_camera(folder)        finds bright squares in an image of any size and says their color
    make_chain(folder)         "linear" in two nodes: bundle_maker's classifier, then twice its numbers; takes x [n, 4]
    make_ensemble(folder)      three linear classifiers whose mean is answered

All return the composed bundle, opened and verified. `squares(...)` draws what the camera sees.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from support.makers import bundles as bundle_maker

from edge_agent.bundle import Bundle, file_entry, open_bundle
from edge_agent.inference.samples import write_arrays
from edge_agent.offline.compose import compose
from edge_contracts.answering import Labels, Nms, Softmax, TopK
from edge_contracts.manifest import (
    MANIFEST_NAME,
    Input,
    LastResort,
    Lineage,
    Output,
    SampleMapping,
    Variant,
    manifest_bytes,
)
from edge_contracts.pipeline import parse_pipeline, pipeline_bytes
from edge_contracts.processing import Channels, Resize, Transpose

Array = np.ndarray[Any, Any]
COLORS = ("red", "green", "blue")
CELLS = 4
"""The detector looks at so many by so many cells of its image."""

CAMERA = """\
name = "camera"
version = "1.0.0"
samples = "images.npz"
[inputs.image]
dtype = "uint8"
shape = [-1, -1, -1, 3]
[[nodes]]
kind = "model"
name = "classify"
bundle = "colors"
inputs = { x = "crop/crops" }
rows = "detect/found_count"
[[nodes]]
kind = "crops"
name = "crop"
image = "input/image"
boxes = "detect/found_boxes"
height = 12
width = 12
[[nodes]]
kind = "model"
name = "detect"
bundle = "detector"
inputs = { image = "input/image" }
[outputs.boxes]
of = "detect/found_boxes"
[outputs.count]
of = "detect/found_count"
[outputs.colors]
of = "classify/p"
kind = "probabilities"
"""

CHAIN = """\
name = "linear"
version = "{version}"
samples = "samples.npz"
metric = "top1"
min_score = 0.9
tolerance = 0.001
[inputs.x]
dtype = "float32"
shape = [-1, 4]
[[nodes]]
kind = "model"
name = "first"
bundle = "first"
inputs = {{ x = "input/x" }}
{first}
[[nodes]]
kind = "model"
name = "second"
bundle = "second"
inputs = {{ y = "first/y" }}
[outputs.y]
of = "second/z"
kind = "logits"
"""


def squares(height: int, width: int, *spots: tuple[int, str]) -> Array:
    """Return a dark image with one bright square of a color in each of the named cells, row by row."""
    image = np.full((height, width, 3), 10, np.uint8)
    high, wide = height // CELLS, width // CELLS
    for cell, color in spots:
        top, left = cell // CELLS * high, cell % CELLS * wide
        image[top : top + high, left : left + wide, COLORS.index(color)] = 250
    return image


def make_camera(folder: Path) -> Bundle:
    """Return the pipeline detect → crop → classify; see the module."""
    make_detector(folder / "detector")
    make_colors(folder / "colors")
    images = np.stack([squares(64, 64, (5, "red"), (10, "blue")), squares(64, 64, (0, "green"))])
    write_arrays(folder / "images.npz", {"input_0": images})
    return composed(folder, CAMERA, "camera")


def make_chain(
    folder: Path,
    version: str = "2.0.0",
    models: Sequence[tuple[str, bytes]] | None = None,
    first: str = "",
    resort: LastResort | None = None,
) -> Bundle:
    """Return a pipeline in two nodes that answers bundle_maker's samples as its classifier does. `models` are the
    variants of the first node, `first` more lines about it, `resort` its last resort."""
    bundle_maker.make_bundle(folder / "first", models=models, last_resort=resort or LastResort())
    _make_gain(folder / "second")
    write_linear_samples(folder / "samples.npz")
    return composed(folder, CHAIN.format(version=version, first=first), f"chain-{version}")


def make_ensemble(folder: Path, kind: str = "mean", least: int | None = None, bad: bytes | None = None) -> Bundle:
    """Return a pipeline of three members; the last one's model is `bad` if given."""
    text = (
        'name = "linear"\nversion = "2.0.0"\nsamples = "samples.npz"\n[inputs.x]\ndtype = "float32"\nshape = [-1, 4]\n'
    )
    for index, scale in enumerate((0.5, 1.0, 2.0)):
        model = bad if bad is not None and index == 2 else bundle_maker.scaled_model(scale)
        bundle_maker.make_bundle(folder / f"member-{index}", models=[("only", model)])
        text += (
            f'[[nodes]]\nkind = "model"\nname = "m{index}"\nbundle = "member-{index}"\ninputs = {{ x = "input/x" }}\n'
        )
    text += f'[[nodes]]\nkind = "{kind}"\nname = "all"\nof = ["m0/y", "m1/y", "m2/y"]\n'
    text += "" if least is None else f"least = {least}\n"
    text += f'[outputs.y]\nof = "all/{kind if kind == "mean" else "votes"}"\n'
    write_linear_samples(folder / "samples.npz")
    return composed(folder, text, "ensemble")


def composed(folder: Path, text: str, name: str) -> Bundle:
    """Compose what the text of a pipeline's file says, in `folder`, and return the bundle."""
    file, out = folder / f"{name}.toml", folder / name
    file.write_text(text)
    out.mkdir()
    compose(file, out, datetime.now(UTC))
    return open_bundle(out)


def changed(bundle: Bundle, **fields: Any) -> Bundle:
    """Rewrite the first rung's graph with other fields and seal the bundle again, as somebody might by hand."""
    path = bundle.folder / bundle.manifest.variants[0].file
    graph = json.loads(path.read_bytes()) | fields
    path.write_bytes(json.dumps(graph).encode())
    return sealed(bundle)


def sealed(bundle: Bundle, **fields: Any) -> Bundle:
    """Write the manifest of a pipeline anew over the files as they are now, with other fields."""
    paths = sorted(path for path in bundle.folder.rglob("*") if path.is_file())
    entries = tuple(file_entry(path, bundle.folder) for path in paths if path != bundle.folder / MANIFEST_NAME)
    manifest = msgspec.structs.replace(bundle.manifest, files=entries, **fields)
    (bundle.folder / MANIFEST_NAME).write_bytes(manifest_bytes(manifest))
    return open_bundle(bundle.folder)


def graph_of(bundle: Bundle) -> dict[str, Any]:
    """Return the first rung's graph as plain values."""
    found: dict[str, Any] = json.loads((bundle.folder / bundle.manifest.variants[0].file).read_bytes())
    assert pipeline_bytes(parse_pipeline(json.dumps(found).encode()))
    return found


def write_linear_samples(path: Path) -> None:
    """Write samples of bundle_maker's classifier with their classes."""
    x, y = bundle_maker.samples(32, seed=3)
    write_arrays(path, {"input_0": x, "y": y})


def make_detector(folder: Path) -> None:
    """Write a bundle that finds bright cells of an image of any size, by the brightness of each."""
    high = [[x / CELLS, y / CELLS, (x + 1) / CELLS, (y + 1) / CELLS] for y in range(CELLS) for x in range(CELLS)]
    nodes = [
        helper.make_node("AveragePool", ["image"], ["cells"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Reshape", ["cells", "column"], ["scores"]),
        helper.make_node("ReduceSum", ["scores", "all"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "grid"], ["boxes"]),
    ]
    constants = {
        "column": np.array([-1, CELLS * CELLS, 1], np.int64),
        "all": np.array([1, 2], np.int64),
        "zero": np.zeros(1, np.float32),
        "grid": np.array([high], np.float32),
    }
    outputs = {"boxes": ["n", CELLS * CELLS, 4], "scores": ["n", CELLS * CELLS, 1]}
    sample = SampleMapping(
        dtype="uint8",
        scale=1 / 255,
        shape=(-1, -1, -1, 3),
        steps=(
            Resize(height=16, width=16),
            Channels(to="grey"),
            Transpose(axes=(2, 0, 1)),
        ),
    )
    fields = {
        "schema": 2,
        "name": "detector",
        "inputs": (Input(name="image", dtype="float32", shape=(-1, 1, 16, 16), sample=sample),),
        "outputs": (
            Output(name="boxes", dtype="float32", shape=(-1, CELLS * CELLS, 4)),
            Output(name="scores", dtype="float32", shape=(-1, CELLS * CELLS, 1)),
        ),
        "answer": (Nms(boxes="boxes", scores="scores", name="found", most=4, score_over=0.08, iou_over=0.5),),
    }
    _write(folder, nodes, constants, {"image": ["n", 1, 16, 16]}, outputs, fields)


def make_colors(folder: Path) -> None:
    """Write a bundle that says which color an 8 x 8 image is; its samples may be of any size."""
    sample = SampleMapping(
        dtype="uint8", scale=1 / 25, shape=(-1, -1, -1, 3), steps=(Resize(height=8, width=8, fit="cover"),)
    )
    fields = {
        "schema": 2,
        "name": "colors",
        "labels": COLORS,
        "inputs": (Input(name="x", dtype="float32", shape=(-1, 8, 8, 3), sample=sample),),
        "outputs": (Output(name="y", dtype="float32", shape=(-1, 3), kind="logits"),),
        "answer": (
            Softmax(of="y", name="p"),
            TopK(of="p", name="best", k=1),
            Labels(of="best_classes", name="color"),
        ),
    }
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)]
    _write(folder, nodes, {}, {"x": ["n", 8, 8, 3]}, {"y": ["n", 3]}, fields)


def _make_gain(folder: Path) -> None:
    plain = Input(name="y", dtype="float32", shape=(-1, 3), sample=SampleMapping(dtype="float32"))
    fields = {
        "name": "gain",
        "inputs": (plain,),
        "outputs": (Output(name="z", dtype="float32", shape=(-1, 3), kind="logits"),),
    }
    nodes = [helper.make_node("Mul", ["y", "two"], ["z"])]
    _write(folder, nodes, {"two": np.array([2], np.float32)}, {"y": ["n", 3]}, {"z": ["n", 3]}, fields)


def _write(
    folder: Path,
    nodes: list[Any],
    constants: dict[str, Array],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    fields: dict[str, Any],
) -> None:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    folder.mkdir(parents=True)
    (folder / "m.onnx").write_bytes(data)
    bundle_maker.seal(
        folder,
        {
            "version": "1.0.0",
            "created": "2026-11-22T10:00:00Z",
            "variants": (Variant(id="m", file="m.onnx", format="onnx", size=len(data)),),
            "lineage": Lineage(source_sha256="0" * 64),
            **fields,
        },
    )
