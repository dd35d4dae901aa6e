"""A program saved by torch.export comes in as one ONNX file that answers the same; what cannot is named."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edge_compression.importing import ImportingError, import_model
from edge_compression.onnx_graph import session

pytestmark = [pytest.mark.timeout(240), pytest.mark.filterwarnings("ignore")]  # torch warns of its own deprecations


class _Eigen(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(x)


def saved(module: nn.Module, example: torch.Tensor, path: Path) -> Path:
    torch.export.save(torch.export.export(module.eval(), (example,)), path)
    return path


def test_a_saved_program_answers_as_the_module_does(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14, 4))
    example = torch.randn(1, 3, 16)
    data = import_model(saved(module, example, tmp_path / "m.pt2"))
    opened = session(data)
    found = opened.run(None, {opened.get_inputs()[0].name: example.numpy()})[0]
    np.testing.assert_allclose(found, module(example).detach().numpy(), atol=1e-5)
    assert not [tensor for tensor in onnx.load_model_from_string(data).graph.initializer if tensor.external_data]


def test_an_operator_onnx_does_not_have_is_named(tmp_path: Path) -> None:
    path = saved(_Eigen(), torch.randn(1, 4, 4), tmp_path / "m.pt2")
    with pytest.raises(ImportingError, match="linalg_eigh"):
        import_model(path)


def test_a_file_torch_cannot_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(b"nothing")
    with pytest.raises(ImportingError, match=r"m\.pt2"):
        import_model(tmp_path / "m.pt2")
