"""Small models of other kinds than convolutions: recurrent ones that really classify, transformers of many spellings.

A random recurrent layer with a readout fitted by least squares (an echo state network, Jaeger 2001) is accurate enough
to show what quantization loses, without a training framework.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_compression.onnx_tools.graph import save, session

Array = NDArray[Any]

STEPS, FEATURES, CLASSES = 40, 6, 4
GATES = {"GRU": 3, "LSTM": 4}


def sequences(count: int, seed: int) -> tuple[Array, Array]:
    """Return noisy waves [count, STEPS, FEATURES] whose frequencies and phases are the class's."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, CLASSES, count)
    time = np.arange(STEPS)[None, :, None]
    frequency = 1 + (y[:, None, None] + np.arange(FEATURES)) % CLASSES
    waves = np.sin(2 * np.pi * frequency * time / STEPS)
    return (waves + 1.0 * generator.standard_normal(waves.shape)).astype(np.float32), y


def recurrent_classifier(kind: str, *, hidden: int = 96, directions: int = 2) -> onnx.ModelProto:
    """Return a model of two recurrent layers, the second bidirectional, and a fitted readout of its mean state."""
    generator = np.random.default_rng(7)
    constants = {"batch_axis": np.array([1]), "time_axis": np.array([0])}
    nodes = [helper.make_node("Transpose", ["x"], ["turned"], perm=[1, 0, 2])]
    source, width = "turned", FEATURES
    for layer, ways in enumerate((1, directions)):
        rows = GATES[kind] * hidden
        constants[f"input_{layer}"] = generator.standard_normal((ways, rows, width)) / np.sqrt(width)
        constants[f"state_{layer}"] = generator.standard_normal((ways, rows, hidden)) / np.sqrt(hidden)
        constants[f"bias_{layer}"] = 0.1 * generator.standard_normal((ways, 2 * rows))
        inputs = [source, f"input_{layer}", f"state_{layer}", f"bias_{layer}"]
        way = "bidirectional" if ways == 2 else "forward"
        nodes.append(helper.make_node(kind, inputs, [f"states_{layer}"], hidden_size=hidden, direction=way))
        if ways == 1:
            nodes.append(helper.make_node("Squeeze", [f"states_{layer}", "batch_axis"], [f"out_{layer}"]))
        source, width = f"out_{layer}", hidden
    nodes.append(helper.make_node("ReduceMean", ["states_1"], ["mean"], axes=[0], keepdims=0))
    nodes.append(helper.make_node("Transpose", ["mean"], ["by_sample"], perm=[1, 0, 2]))
    constants["flat"] = np.array([-1, directions * hidden])
    nodes.append(helper.make_node("Reshape", ["by_sample", "flat"], ["state"]))
    body = _model(nodes, constants, (STEPS, FEATURES), ("state", (directions * hidden,)))
    x, y = sequences(600, seed=1)
    states = session(save(body)).run(None, {"x": x})[0]
    padded = np.concatenate([states, np.ones((len(states), 1))], axis=1)
    penalty = 1e-1 * np.eye(padded.shape[1])
    readout = np.linalg.solve(padded.T @ padded + penalty, padded.T @ np.eye(CLASSES)[y])
    constants["readout"], constants["offset"] = readout[:-1], readout[-1]
    nodes.append(helper.make_node("Gemm", ["state", "readout", "offset"], ["y"]))
    return _model(nodes, constants, (STEPS, FEATURES), ("y", (CLASSES,)))


def _model(
    nodes: list[onnx.NodeProto], constants: dict[str, Array], taken: tuple[int, ...], given: tuple[str, tuple[int, ...]]
) -> onnx.ModelProto:
    typed = {
        name: values.astype(np.float32 if values.dtype.kind == "f" else np.int64) for name, values in constants.items()
    }
    graph = helper.make_graph(
        nodes,
        "sequence",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *taken])],
        [helper.make_tensor_value_info(given[0], TensorProto.FLOAT, ["N", *given[1]])],
        [numpy_helper.from_array(values, name) for name, values in typed.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made


LENGTH, WIDTH, HEADS = 10, 24, 3
SIZE = WIDTH // HEADS


class Attention:
    """One attention layer in a chosen spelling; `nodes` and `constants` make a model with `x` [N, LENGTH, WIDTH]."""

    def __init__(self, spelling: str, mask: str = "none") -> None:
        self.generator = np.random.default_rng(3)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        getattr(self, f"_{spelling}")()
        self._scores(mask)
        self._merge(time_first=spelling == "time_first")

    def model(self) -> onnx.ModelProto:
        """Return the layer with its output projection as a model."""
        return _model(self.nodes, self.constants, (LENGTH, WIDTH), ("y", (LENGTH, WIDTH)))

    def add(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, outputs, **attributes))

    def constant(self, name: str, values: Any) -> str:
        self.constants[name] = np.asarray(values)
        return name

    def linear(self, source: str, target: str, width: int) -> None:
        weights = self.constant(f"{target}_w", self.generator.standard_normal((WIDTH, width)) / np.sqrt(WIDTH))
        bias = self.constant(f"{target}_b", 0.3 * self.generator.standard_normal(width))
        self.add("MatMul", [source, weights], [f"{target}_product"])
        self.add("Add", [bias, f"{target}_product"], [target])

    def _heads(self, source: str, target: str, perm: list[int]) -> None:
        shape = self.constant(f"{target}_shape", [0, 0, HEADS, SIZE])
        self.add("Reshape", [source, shape], [f"{target}_cut"])
        self.add("Transpose", [f"{target}_cut"], [target], perm=perm)

    def _separate(self) -> None:
        """As BERT exports: three projections, the key turned in one step, a scale that is not the usual one."""
        for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
            self.linear("x", f"{name}_all", WIDTH)
            self._heads(f"{name}_all", name, perm)

    def _stacked(self) -> None:
        """One projection, reshaped to [N, L, 3, heads, size], turned and taken apart by Gather."""
        self.linear("x", "qkv", 3 * WIDTH)
        self.add("Reshape", ["qkv", self.constant("five", [0, 0, 3, HEADS, SIZE])], ["cut"])
        self.add("Transpose", ["cut"], ["turned"], perm=[2, 0, 3, 1, 4])
        for place, name in enumerate(("q", "k_rows", "v")):
            self.add("Gather", ["turned", self.constant(f"at_{place}", place)], [name], axis=0)
        self.add("Transpose", ["k_rows"], ["k"], perm=[0, 1, 3, 2])

    def _split(self) -> None:
        """One projection whose columns are ordered head by head, query and key scaled before they meet."""
        self.linear("x", "qkv", 3 * WIDTH)
        self.add("Reshape", ["qkv", self.constant("four", [0, 0, HEADS, 3 * SIZE])], ["cut"])
        self.add("Transpose", ["cut"], ["turned"], perm=[0, 2, 1, 3])
        self.add("Split", ["turned"], ["q_raw", "k_raw", "v"], axis=3)
        root = self.constant("root", SIZE**-0.25)
        self.add("Mul", ["q_raw", root], ["q"])
        self.add("Transpose", ["k_raw"], ["k_turned"], perm=[0, 1, 3, 2])
        self.add("Mul", ["k_turned", root], ["k"])

    def _time_first(self) -> None:
        """As torch's MultiheadAttention: everything is [L, N, ...] around the layer."""
        self.add("Transpose", ["x"], ["x_time"], perm=[1, 0, 2])
        for name in ("q", "k_rows", "v"):
            self.linear("x_time", f"{name}_all", WIDTH)
            self.add(
                "Reshape", [f"{name}_all", self.constant(f"{name}_shape", [LENGTH, -1, HEADS, SIZE])], [f"{name}_cut"]
            )
            self.add("Transpose", [f"{name}_cut"], [name], perm=[1, 2, 0, 3])
        self.add("Transpose", ["k_rows"], ["k"], perm=[0, 1, 3, 2])

    def _rows(self) -> None:
        """As torch.export writes linear layers: one Gemm over the rows of all positions."""
        rows = self.constant("rows", [-1, WIDTH])
        self.add("Reshape", ["x", rows], ["x_rows"])
        for name in ("q", "k_rows", "v"):
            weights = self.constant(f"{name}_w", self.generator.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH))
            bias = self.constant(f"{name}_b", 0.3 * self.generator.standard_normal(WIDTH))
            self.add("Gemm", ["x_rows", weights, bias], [f"{name}_all"], transB=1)
            shape = self.constant(f"{name}_shape", [-1, LENGTH, HEADS, SIZE])
            self.add("Reshape", [f"{name}_all", shape], [f"{name}_cut"])
            self.add("Transpose", [f"{name}_cut"], [name], perm=[0, 2, 1, 3])
        self.add("Transpose", ["k_rows"], ["k"], perm=[0, 1, 3, 2])

    def _scores(self, mask: str) -> None:
        self.add("MatMul", ["q", "k"], ["raw"])
        self.add("Div", ["raw", self.constant("divisor", 2.0)], ["scaled"])
        scores = "scaled"
        if mask != "none":
            self.add("ReduceMax", ["x"], ["loudest"], axes=[2], keepdims=0)
            self.add("Less", ["loudest", self.constant("floor", 1.2)], ["hidden"])
            self.add("Unsqueeze", ["hidden", self.constant("axes", [1, 2])], ["hidden_4"])
        if mask in ("bias", "expanded"):
            self.add("Cast", ["hidden_4"], ["hidden_float"], to=TensorProto.FLOAT)
            if mask == "expanded":
                self.nodes[-1].output[0] = "hidden_one"
                self.add("Expand", ["hidden_one", self.constant("every", [1, HEADS, 1, 1])], ["hidden_float"])
            self.add("Mul", ["hidden_float", self.constant("far", -1e9)], ["bias"])
            self.add("Add", ["scaled", "bias"], ["scores"])
            scores = "scores"
        if mask == "where":
            self.add("Where", ["hidden_4", self.constant("far", -1e9), "scaled"], ["scores"])
            scores = "scores"
        if mask == "soft":
            self.add("Cast", ["hidden_4"], ["hidden_float"], to=TensorProto.FLOAT)
            self.add("Add", ["scaled", "hidden_float"], ["scores"])
            scores = "scores"
        self.add("Softmax", [scores], ["shares"], axis=-1)
        self.add("MatMul", ["shares", "v"], ["context"])

    def _merge(self, *, time_first: bool) -> None:
        self.add("Transpose", ["context"], ["by_time"], perm=[2, 0, 1, 3] if time_first else [0, 2, 1, 3])
        self.add("Reshape", ["by_time", self.constant("whole", [0, 0, WIDTH])], ["merged"])
        self.linear("merged", "projected", WIDTH)
        if time_first:
            self.add("Transpose", ["projected"], ["y"], perm=[1, 0, 2])
        else:
            self.add("Add", ["x", "projected"], ["y"])
