"""Small classifiers that are really fitted, with their task files, for the tests of the toolchain and the benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
CLASSES, CHANNELS, LENGTH = 4, 3, 32


def samples(count: int, seed: int) -> tuple[Array, Array]:
    """Return noisy sines of `CLASSES` frequencies, [count, CHANNELS, LENGTH] float32, and their classes."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, CLASSES, count)
    time = np.arange(LENGTH) / LENGTH
    phase = generator.uniform(0, 2 * np.pi, (count, CHANNELS, 1))
    waves = np.sin(2 * np.pi * (y[:, None, None] * 3 + 2) * time + phase)
    return (waves + 0.3 * generator.standard_normal(waves.shape)).astype(np.float32), y.astype(np.int64)


def conv_classifier(seed: int = 0, filters: int = 32) -> onnx.ModelProto:
    """Return Conv, Relu, mean, Gemm; the filters random, the last layer fitted by least squares."""
    generator = np.random.default_rng(seed)
    kernel = generator.standard_normal((filters, CHANNELS, 9)).astype(np.float32)
    kernel *= generator.uniform(0.2, 2.0, (filters, 1, 1)).astype(np.float32)
    bias = generator.standard_normal(filters).astype(np.float32)
    x, y = samples(600, seed=1)
    features = np.maximum(conv1d(x, kernel, bias), 0).mean(axis=2)
    design = np.hstack([features, np.ones((len(features), 1))])
    fitted = np.linalg.lstsq(design, np.eye(CLASSES)[y] * 10.0, rcond=None)[0].astype(np.float32)
    constants = {"kernel": kernel, "bias": bias, "weights": fitted[:-1], "offset": fitted[-1]}
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["conv"], name="conv"),
        helper.make_node("Relu", ["conv"], ["relu"], name="relu"),
        helper.make_node("ReduceMean", ["relu"], ["mean"], name="mean", axes=[2], keepdims=0),
        helper.make_node("Gemm", ["mean", "weights", "offset"], ["logits"], name="gemm"),
    ]
    return model(nodes, constants, [CHANNELS, LENGTH], [CLASSES], output="logits")


def model(
    nodes: list[Any], constants: dict[str, Array], taken: list[int], given: list[int], *, output: str
) -> onnx.ModelProto:
    """Return a checked model with input `x` and one output, both float32 with any batch."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *taken])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", *given])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def conv1d(x: Array, kernel: Array, bias: Array) -> Array:
    """Return the valid cross-correlation that ONNX's Conv computes."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2], axis=2)
    return np.einsum("ncpk,fck->nfp", windows, kernel, optimize=True) + bias[None, :, None]


def write_task(folder: Path, *, made: onnx.ModelProto | None = None, count: int = 300) -> Path:
    """Write model, data and task file; return the task file."""
    x, y = samples(count, seed=2)
    calibration, _ = samples(64, seed=3)
    np.savez(folder / "waves.npz", x=x, y=y, calib_x=calibration)
    onnx.save(made if made is not None else conv_classifier(), folder / "waves.onnx")
    task = folder / "waves.toml"
    task.write_text(
        'name = "waves"\nmodel = "waves.onnx"\nmetric = "top1"\n'
        '[data]\nfile = "waves.npz"\n[input]\ndtype = "float32"\nscale = 1.0\noffset = 0.0\n'
    )
    return task
