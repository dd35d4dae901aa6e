"""Errors by layer: the counterpart is found whatever it is called, and the decibels are the definition's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.makers import onnx_models

from edge_compression.evaluation.layer_errors import LARGEST_DB, LayersPlan, layer_errors
from edge_contracts.manifest import Input, SampleMapping

TENSOR = Input(name="x", dtype="float32", shape=(-1, 3, 32), sample=SampleMapping(dtype="float32"))


def errors(folder: Path, variant: onnx.ModelProto) -> dict[str, float | None]:
    onnx.save(onnx_models.conv_classifier(), folder / "original.onnx")
    onnx.save(variant, folder / "variant.onnx")
    np.save(folder / "calib.npy", onnx_models.samples(20, seed=3)[0])
    plan = LayersPlan(
        original=str(folder / "original.onnx"),
        variant=str(folder / "variant.onnx"),
        calibration=str(folder / "calib.npy"),
        tensors=(TENSOR,),
        memory_limit_mb=2048,
    )
    return {one.name: one.sqnr_db for one in layer_errors(plan)}


def test_equal_models_have_no_noise_whatever_their_tensors_are_called(tmp_path: Path) -> None:
    renamed = onnx_models.conv_classifier()
    for node in renamed.graph.node:
        node.input[:] = [{"conv": "a", "relu": "b", "mean": "c"}.get(name, name) for name in node.input]
        node.output[:] = [{"conv": "a", "relu": "b", "mean": "c"}.get(name, name) for name in node.output]
    assert errors(tmp_path, renamed) == {"conv": LARGEST_DB, "gemm": LARGEST_DB}


def test_a_layer_scaled_by_a_tenth_has_twenty_decibels(tmp_path: Path) -> None:
    scaled = onnx_models.conv_classifier()
    for tensor in scaled.graph.initializer:
        if tensor.name in ("weights", "offset"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.1), tensor.name))
    found = errors(tmp_path, scaled)
    assert found["conv"] == LARGEST_DB
    assert found["gemm"] == pytest.approx(20.0, abs=0.01)


def test_a_layer_with_fewer_channels_has_no_counterpart(tmp_path: Path) -> None:
    found = errors(tmp_path, onnx_models.conv_classifier(filters=16))
    assert found["conv"] is None


def test_what_cannot_be_compared_costs_only_the_picture(tmp_path: Path) -> None:
    broken = onnx_models.conv_classifier()
    broken.graph.node[0].op_type = "NoSuchOperator"
    assert errors(tmp_path, broken) == {}
