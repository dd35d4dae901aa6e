"""An ONNX graph as a torch module, for training: float constants become parameters, operators their torch functions.

What each operator is in torch is in `torch_operators`; one that is not there is an error that names its node. torch
belongs to the extra `train` and is imported when a graph is made, not before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edge_compression.contract import PassError
from edge_compression.onnx_graph import array, initializers
from edge_compression.torch_operators import OPERATORS

Array = NDArray[Any]
Tensor = Any

TRAINED = {"Conv": (1, 2), "Gemm": (1, 2), "MatMul": (1,), "Add": (0, 1), "PRelu": (1,), "LayerNormalization": (1, 2)}
"""Places of inputs whose float constants are trained; all others stay."""


class TorchGraph:
    """A graph to run with torch tensors. `parameters` are its trained constants by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import torch

        self._torch = torch
        self._nodes = list(model.graph.node)
        self._input = model.graph.input[0].name
        for node in self._nodes:
            if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
                where = f"node {node.name or node.output[0]} ({node.op_type})"
                raise PassError("this operator cannot be trained", subject=where)
        trained = {node.input[place] for node in self._nodes for place in _trained_places(node)}
        self._constants = {name: torch.tensor(np.array(array(tensor))) for name, tensor in initializers(model).items()}
        self.parameters = {
            name: value.requires_grad_(True)
            for name, value in self._constants.items()
            if name in trained and value.is_floating_point()
        }

    def __call__(self, x: Tensor, wanted: str) -> Tensor:
        """Return the tensor `wanted` for a batch of inputs."""
        values: dict[str, Any] = {**self._constants, self._input: x}
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
            constants[name].CopyFrom(numpy_helper.from_array(value.detach().numpy(), name))


def _trained_places(node: onnx.NodeProto) -> list[int]:
    return [place for place in TRAINED.get(node.op_type, ()) if place < len(node.input) and node.input[place]]
