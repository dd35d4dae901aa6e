"""A task whose answers are values, for benchmarks where a corpus has none: Friedman's first function with noise that
grows with one input (J. Friedman, "Multivariate adaptive regression splines", Ann. Statist. 19, 1991), and a network of
one hidden layer of random features, fitted by least squares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_agent.inference.samples import write_arrays

Array = NDArray[Any]

FEATURES, HIDDEN = 10, 64
TRAINED, SAMPLES, CALIBRATION = 4000, 8000, 256

TASK = """\
name = "values"
model = "values.onnx"
metric = "mae"
[data]
file = "values.npz"
[input]
dtype = "float32"
"""


def write_value_task(folder: Path) -> Path:
    """Write model, samples and task file, the same in every run; return the task file."""
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True, exist_ok=True)
    x, y = _samples(rng, TRAINED + SAMPLES + CALIBRATION)
    hidden = rng.normal(0.0, 1.5, (FEATURES, HIDDEN)).astype(np.float32)
    offset = rng.normal(0.0, 1.0, HIDDEN).astype(np.float32)
    features = np.maximum(x[:TRAINED] @ hidden + offset, 0.0)
    readout, *_ = np.linalg.lstsq(np.c_[features, np.ones(TRAINED)], y[:TRAINED], rcond=None)
    (folder / "values.onnx").write_bytes(_network(hidden, offset, readout.astype(np.float32)))
    held = slice(TRAINED, TRAINED + SAMPLES)
    write_arrays(folder / "values.npz", {"x": x[held], "y": y[held], "calib_x": x[held.stop :]})
    (folder / "values.toml").write_text(TASK, encoding="utf-8")
    return folder / "values.toml"


def _samples(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    x = rng.random((count, FEATURES), dtype=np.float32)
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    return x, (y + rng.normal(0.0, 0.5 + 1.5 * x[:, 3])).astype(np.float32)[:, None]


def _network(hidden: Array, offset: Array, readout: Array) -> bytes:
    nodes = [
        helper.make_node("Gemm", ["x", "hidden", "offset"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["feature"]),
        helper.make_node("Gemm", ["feature", "readout", "bias"], ["y"]),
    ]
    weights = {"hidden": hidden, "offset": offset, "readout": readout[:-1], "bias": readout[-1]}
    graph = helper.make_graph(
        nodes,
        "values",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()],
    )
    opset = helper.make_opsetid("", 17)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString())
