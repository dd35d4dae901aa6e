"""Surfaces of the files in a bundle: models before they reach an engine, and samples. See `fuzz_surfaces`."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from campaigns.fuzzing.forms import RAW, ZIP
from campaigns.fuzzing.surfaces import Run, Surface
from onnx import TensorProto, helper
from support.makers import bundles
from support.makers.tflite_files import external_tflite, linear_tflite

from edge_agent.engines.onnx_external_data import refuse_external_data
from edge_agent.engines.tflite_external_data import refuse_external_buffers
from edge_agent.errors import EngineError
from edge_agent.inference.samples import read_arrays, write_arrays
from edge_contracts.errors import BundleError


def _onnx(data: bytes) -> None:
    """What the walk lets through must hold no external data by the format's own parser."""
    refuse_external_data(data, what="model")
    with contextlib.suppress(Exception):
        model = onnx.load_model_from_string(data)
        assert not any(tensor.external_data for tensor in _tensors(model)), "external data was let through"


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in value if field.is_repeated else [value]:
            if isinstance(part, onnx.TensorProto):
                yield part
            yield from _tensors(part)


def _onnx_seeds() -> list[bytes]:
    model = onnx.load_model_from_string(bundles.linear_model())
    outside = onnx.load_model_from_string(bundles.linear_model())
    tensor = outside.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "../../etc/passwd")
    branch = helper.make_graph([], "location", [], [], [tensor])
    model.graph.node.append(helper.make_node("If", ["c"], ["o"], then_branch=branch))
    model.functions.append(helper.make_function("f", "g", ["location"], ["b"], [], [helper.make_opsetid("", 13)]))
    plain = onnx.load_model_from_string(bundles.linear_model())
    plain.doc_string = "location"
    sparse = helper.make_sparse_tensor(tensor, helper.make_tensor("i", TensorProto.INT64, [1], [0]), [4])
    plain.graph.sparse_initializer.append(sparse)
    return [made.SerializeToString() for made in (model, outside, plain)]


# Samples


def _samples(folder: Path) -> Run:
    path = folder / "probe.npz"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        for array in read_arrays(path, what="probe").values():
            assert array.dtype.kind in "biuf"
            assert array.nbytes <= 64 * max(1, len(data)) + 2**20

    return run


def _sample_seeds() -> list[bytes]:
    made = io.BytesIO()
    x, y = bundles.samples(4)
    write_arrays(made, {"input_0": x, "y": y, "fp32/output_0": np.zeros((1, 2), np.uint8)})  # type: ignore[arg-type]
    return [made.getvalue(), ZIP.make(ZIP.take(made.getvalue()))]


FILES = (
    Surface(name="onnx", open=lambda _: _onnx, seeds=_onnx_seeds, refusals=(EngineError,), form=RAW),
    Surface(
        name="tflite",
        open=lambda _: lambda data: refuse_external_buffers(data, what="model"),
        seeds=lambda: [external_tflite(bundles.WEIGHTS), linear_tflite(bundles.WEIGHTS)],
        refusals=(EngineError,),
        form=RAW,
    ),
    Surface(name="samples", open=_samples, seeds=_sample_seeds, refusals=(BundleError,), form=ZIP),
)
