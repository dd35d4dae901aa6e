"""Pairs of models as releases make them: an ONNX model of the corpus and the same one after real training steps.

The graph is run by torch operators with its own initializers as parameters, trained on the CPU with labeled samples,
and written back into the very same file; the 8-bit models are made from it by ONNX Runtime's static quantization, once
with the scales the old release had and once with fresh ones. `benchmarks/updates/deltas.py` measures what these pairs
cost.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxslim
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch.nn import functional

PARAMETERS = {"Conv": (1, 2), "Gemm": (1, 2), "MatMul": (1,), "Add": (1,)}
"""Operator -> its inputs that training may change."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a model is trained: only the `last` layer or all; `steps` of SGD or Adam at `rate`."""

    name: str
    last: bool
    steps: int
    rate: float
    adam: bool = False


TRAININGS = (
    Training(name="last layer, 50 steps of SGD at 1e-2", last=True, steps=50, rate=1e-2),
    Training(name="all layers, 5 steps of SGD at 1e-4", last=False, steps=5, rate=1e-4),
    Training(name="all layers, 50 steps of SGD at 1e-3", last=False, steps=50, rate=1e-3),
    Training(name="all layers, 50 steps of Adam at 1e-4", last=False, steps=50, rate=1e-4, adam=True),
)

BATCH = 16
"""Samples of one step."""

MOST_SAMPLES = 4000
LARGE_BYTES = 8_000_000

GRADIENT_NORM = 1.0
"""Gradients are clipped to this norm: some of the models are fed raw pixels."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of the corpus: its simplified float model and its samples as the model is fed them. A model of many
    megabytes is trained and calibrated with `thrift` times less."""

    name: str
    model: onnx.ModelProto
    x: np.ndarray[Any, Any]
    y: np.ndarray[Any, Any]
    calibration: np.ndarray[Any, Any]
    thrift: int


def read_task(corpus: Path, name: str) -> Task:
    """Read a task; it is trained on its training samples, or on the evaluation samples where it has none."""
    settings = tomllib.loads((corpus / f"{name}.toml").read_text())
    feed = settings["input"]

    def fed(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return ((samples.astype(np.float32) - feed["offset"]) * feed["scale"]).astype(np.float32)

    data = np.load(corpus / f"{name}.npz", allow_pickle=False)
    train = corpus / f"{name}_train.npz"
    labeled = np.load(train, allow_pickle=False) if train.exists() else data
    model = onnxslim.slim(onnx.load(corpus / f"{name}.onnx"))
    thrift = 5 if model.ByteSize() > LARGE_BYTES else 1
    count = min(len(labeled["y"]), MOST_SAMPLES // thrift)
    return Task(
        name=name,
        model=model,
        x=fed(labeled["x"][:count]),
        y=labeled["y"][:count],
        calibration=fed(data["calib_x"][: 32 // thrift]),
        thrift=thrift,
    )


def fine_tuned(task: Task, training: Training) -> onnx.ModelProto:
    """Return the task's model after training, every other byte of it unchanged."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = onnx.ModelProto.FromString(task.model.SerializeToString())
    weights = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in model.graph.initializer
    }
    trained = _trained_names(model, weights, last=training.last)
    parameters = [weights[name].requires_grad_() for name in trained]
    optimizer = (torch.optim.Adam if training.adam else torch.optim.SGD)(parameters, lr=training.rate)
    order = np.random.default_rng(0)
    for _ in range(training.steps // task.thrift or 1):
        chosen = order.choice(len(task.x), max(4, BATCH // task.thrift), replace=False)
        logits = _run(model, weights, torch.from_numpy(task.x[chosen]))
        optimizer.zero_grad()
        functional.cross_entropy(logits, torch.from_numpy(task.y[chosen])).backward()
        torch.nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM)
        optimizer.step()
    for tensor in model.graph.initializer:
        if tensor.name in trained:
            tensor.raw_data = weights[tensor.name].detach().numpy().tobytes()
            del tensor.float_data[:]
    return model


def _trained_names(model: onnx.ModelProto, weights: dict[str, torch.Tensor], *, last: bool) -> list[str]:
    found: list[list[str]] = []
    for node in model.graph.node:
        names = [node.input[index] for index in PARAMETERS.get(node.op_type, ()) if index < len(node.input)]
        layer = [name for name in names if name in weights and weights[name].dtype == torch.float32]
        if layer:
            found.append(layer)
    head = next(index for index in range(len(found) - 1, -1, -1) if weights[found[index][0]].ndim > 1)
    return [name for layer in (found[head:] if last else found) for name in dict.fromkeys(layer)]


def _run(model: onnx.ModelProto, weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Return the logits: the model's output, or what its final Softmax is fed."""
    values = dict(weights) | {model.graph.input[0].name: x}
    for node in model.graph.node:
        inputs = [values[name] for name in node.input if name]
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        values[node.output[0]] = _OPERATORS[node.op_type](inputs, attributes)
    return values[model.graph.output[0].name].flatten(1)


def _conv(inputs: list[torch.Tensor], given: dict[str, Any]) -> torch.Tensor:
    x, rank = inputs[0], inputs[0].ndim - 2
    pads = given.get("pads", [0] * 2 * rank)
    # onnx: all starts, then all ends; torch: start and end of the last dimension first
    x = functional.pad(x, [pad for axis in range(rank - 1, -1, -1) for pad in (pads[axis], pads[axis + rank])])
    run = functional.conv2d if rank == 2 else functional.conv1d
    strides = given.get("strides", [1] * rank)
    return run(x, inputs[1], inputs[2] if len(inputs) > 2 else None, tuple(strides), groups=given.get("group", 1))


def _gemm(inputs: list[torch.Tensor], given: dict[str, Any]) -> torch.Tensor:
    return functional.linear(inputs[0], inputs[1] if given.get("transB") else inputs[1].T, inputs[2])


def _mean(inputs: list[torch.Tensor], given: dict[str, Any]) -> torch.Tensor:
    axes = given.get("axes") or [int(axis) for axis in inputs[1]]
    return inputs[0].mean(dim=list(axes), keepdim=bool(given.get("keepdims", 1)))


_OPERATORS: dict[str, Any] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": lambda inputs, _: inputs[0] @ inputs[1],
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "Sub": lambda inputs, _: inputs[0] - inputs[1],
    "Div": lambda inputs, _: inputs[0] / inputs[1],
    "Relu": lambda inputs, _: inputs[0].relu(),
    "Clip": lambda inputs, _: inputs[0].clip(inputs[1], inputs[2]),
    "Pad": lambda inputs, _: functional.pad(inputs[0], _torch_pads(inputs[1])),
    "MaxPool": lambda inputs, given: functional.max_pool2d(inputs[0], given["kernel_shape"], given["strides"]),
    "AveragePool": lambda inputs, given: functional.avg_pool2d(inputs[0], given["kernel_shape"], given["strides"]),
    "GlobalAveragePool": lambda inputs, _: inputs[0].mean(dim=(2, 3), keepdim=True),
    "ReduceMean": _mean,
    "Flatten": lambda inputs, _: inputs[0].flatten(1),
    "Reshape": lambda inputs, _: inputs[0].flatten(1),  # every one here flattens
    "Transpose": lambda inputs, given: inputs[0].permute(*given["perm"]),
    "Softmax": lambda inputs, _: inputs[0],
}


def _torch_pads(pads: torch.Tensor) -> list[int]:
    rank = len(pads) // 2
    return [int(pad) for axis in range(rank - 1, -1, -1) for pad in (pads[axis], pads[axis + rank])]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, samples: np.ndarray[Any, Any]) -> None:
        self._samples: Iterator[dict[str, Any]] = ({name: sample[None]} for sample in samples)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._samples, None)


def quantized(task: Task, model: onnx.ModelProto, work: Path) -> onnx.ModelProto:
    """Return the model in int8 (QDQ, per channel), with scales of its own."""
    source, made = work / "float.onnx", work / "int8.onnx"
    onnx.save(model, source)
    reader = _Reader(model.graph.input[0].name, task.calibration)
    quantize_static(source, made, reader, QuantFormat.QDQ, per_channel=True, weight_type=QuantType.QInt8)
    return onnx.load(made)


def requantized(old: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the int8 model `old` with the weights and biases of the float `model` at the scales `old` has."""
    floats = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made = onnx.ModelProto.FromString(old.SerializeToString())
    tensors = {tensor.name: tensor for tensor in made.graph.initializer}
    for node in made.graph.node:
        stored = tensors.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        name = "" if stored is None else stored.name.removesuffix("_quantized")
        if stored is None or name not in floats:
            continue
        scale = numpy_helper.to_array(tensors[node.input[1]]).astype(np.float64)
        axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
        if scale.ndim and scale.size > 1:
            scale = scale.reshape([-1 if index == axis else 1 for index in range(floats[name].ndim)])
        before = numpy_helper.to_array(stored)
        limits = np.iinfo(before.dtype)
        low = -127 if before.dtype == np.int8 else limits.min
        levels = np.clip(np.rint(floats[name] / scale), low, limits.max).astype(before.dtype)
        stored.CopyFrom(numpy_helper.from_array(levels.reshape(before.shape), stored.name))
    return made
