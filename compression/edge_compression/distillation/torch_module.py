"""An ONNX graph as a torch module, for training: float constants become parameters, operators their torch functions.

Weights stored as integers are trained too: a float stands for each, is rounded on the way forward and passed by on the
way back (straight-through estimator, Bengio et al. 2013, arXiv:1308.3432), so the graph learns to live with its few
levels. What each operator is in torch is in `torch_operators`; one that is not there is an error that names its node.
torch belongs to the extra `train` and is imported when a graph is made, not before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edge_compression.distillation.torch_operators import OPERATORS
from edge_compression.onnx_tools.graph import array, initializers
from edge_compression.pass_api import PassError

Array = NDArray[Any]
Tensor = Any

TRAINED = {"Conv": (1, 2), "Gemm": (1, 2), "MatMul": (1,), "Add": (0, 1), "PRelu": (1,), "LayerNormalization": (1, 2)}
"""Places of inputs whose float constants are trained; all others stay."""

STORED = "DequantizeLinear"
"""The operator whose integer constants are trained as well."""


class TorchGraph:
    """A graph to run with torch tensors. `parameters` are its trained constants by name, `stored` the names of those
    that the file has as integers."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import torch

        self._torch = torch
        self._nodes = list(model.graph.node)
        self._input = model.graph.input[0].name
        for node in self._nodes:
            if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
                where = f"node {node.name or node.output[0]} ({node.op_type})"
                raise PassError("this operator cannot be trained", subject=where)
        constants = {name: np.array(array(tensor)) for name, tensor in initializers(model).items()}
        stored = {node.input[0] for node in self._nodes if node.op_type == STORED} & constants.keys()
        self.stored = frozenset(stored)
        trained = {node.input[place] for node in self._nodes for place in _trained_places(node)}
        self._largest = {name: int(np.abs(constants[name].astype(np.int64)).max(initial=0)) for name in stored}
        self._constants = {
            name: torch.tensor(values.astype(np.float32) if name in stored else values)
            for name, values in constants.items()
        }
        self.parameters = {
            name: value.requires_grad_(True)
            for name, value in self._constants.items()
            if name in stored or (name in trained and value.is_floating_point())
        }

    def __call__(self, x: Tensor, wanted: str) -> Tensor:
        """Return the tensor `wanted` for a batch of inputs."""
        values: dict[str, Any] = {**self._constants, self._input: x}
        values.update({name: self._whole(name) for name in self._largest})
        for node in self._nodes:
            taken = [values[name] if name else None for name in node.input]
            made = OPERATORS[node.op_type](self._torch, node, taken)
            several = made if isinstance(made, tuple) else (made,)
            values.update(zip(node.output, several, strict=False))
            if wanted in node.output:
                break
        return values[wanted]

    def write(self, model: onnx.ModelProto) -> None:
        """Set the model's constants to the trained ones."""
        constants = initializers(model)
        for name, value in self.parameters.items():
            exact = self._whole(name).round() if name in self._largest else value
            values = exact.detach().numpy().astype(array(constants[name]).dtype)
            constants[name].CopyFrom(numpy_helper.from_array(values, name))

    def _whole(self, name: str) -> Tensor:
        """Return a stored weight in whole numbers, none beyond the largest it began with; gradients pass as if it were
        not rounded."""
        value = self._torch.clamp(self._constants[name], -self._largest[name], self._largest[name])
        return value + (self._torch.round(value) - value).detach()


def _trained_places(node: onnx.NodeProto) -> list[int]:
    return [place for place in TRAINED.get(node.op_type, ()) if place < len(node.input) and node.input[place]]
